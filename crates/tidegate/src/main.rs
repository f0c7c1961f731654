//! The binary; the program is the library of the same name.

fn main() -> std::process::ExitCode {
    tidegate::main()
}
