//! Prints the page's protocol as TypeScript; `make protocol` writes it into the page's sources.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(tidegate_serve::protocol::typescript().as_bytes())
}
