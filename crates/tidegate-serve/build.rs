//! Makes sure that there is a page to embed, so that a fresh clone compiles without Node.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

const PLACEHOLDER: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Tidegate</title>
<p>This binary was built without the page. Run <code>make build</code>.
</html>
";

fn main() {
    let folder = Path::new("../../web/dist");
    println!("cargo:rerun-if-changed=../../web/dist");
    println!("cargo:rerun-if-changed=build.rs");
    let index = folder.join("index.html");
    if !index.exists() {
        fs::create_dir_all(folder).expect("the page's folder can be made");
        fs::write(&index, PLACEHOLDER).expect("the placeholder can be written");
        // As old as can be: `make` must still see that the page is not built.
        let file = fs::File::options()
            .write(true)
            .open(&index)
            .expect("the placeholder is there");
        file.set_modified(SystemTime::UNIX_EPOCH)
            .expect("its time can be set");
    }
    if fs::read(&index).is_ok_and(|text| text == PLACEHOLDER.as_bytes()) {
        println!(
            "cargo:warning=web/dist is not built: the binary will hold a placeholder page (`make build` builds it)"
        );
    }
}
