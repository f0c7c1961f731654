//! Clients that others wrote: `curl`, and `openssl` for keys, requests and answers.
//!
//! They must be installed (Debian: `curl`, `openssl`); without them these tests fail.

use crate::server::{PATIENCE, Server};
use rustls_pki_types::CertificateDer;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;
use tidegate_pki::est;
use tidegate_pki::inspect::{self, CertificateInfo};
use tokio::process::Command;
use tokio::time::timeout;

/// Runs a tool to its end.
pub(crate) async fn run(tool: &str, arguments: &[impl AsRef<OsStr>]) -> Output {
    let running = Command::new(tool).args(arguments).kill_on_drop(true).output();
    let ended = timeout(PATIENCE, running).await;
    ended
        .unwrap_or_else(|_| panic!("{tool} does not end"))
        .unwrap_or_else(|error| panic!("{tool} is not installed: {error}"))
}

/// Runs a tool that must succeed; what it printed.
pub(crate) async fn run_well(tool: &str, arguments: &[impl AsRef<OsStr>]) -> String {
    let output = run(tool, arguments).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What `curl` received.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The one certificate in it, which is checked to be EST's answer.
    #[track_caller]
    pub(crate) fn certificate(&self) -> CertificateInfo {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/pkcs7-mime; smime-type=certs-only")
        );
        assert_eq!(self.header("content-transfer-encoding"), Some("base64"));
        let [certificate] = est::read_certs_only(&self.body).unwrap().try_into().unwrap();
        describe(certificate)
    }
}

pub(crate) fn describe(certificate: CertificateDer<'static>) -> CertificateInfo {
    inspect::describe(certificate, Path::new("answer")).unwrap()
}

/// `curl` with whatever belongs to one request.
pub(crate) struct Curl {
    arguments: Vec<String>,
    answer: PathBuf,
    url: String,
}

impl Curl {
    /// For a path under `/.well-known/est/`. `name` is that of a file for the answer.
    pub(crate) fn new(server: &Server, path: &str, name: &str) -> Self {
        let ca = server.path("ca.pem").display().to_string();
        let arguments = ["--silent", "--show-error", "--max-time", "50", "--cacert", &ca];
        Self {
            arguments: arguments.map(str::to_owned).to_vec(),
            answer: server.path(&format!("{name}.answer")),
            url: format!("https://{}/.well-known/est/{path}", server.address),
        }
    }

    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// HTTP Basic.
    pub(crate) fn user(self, id: &str, token: &str) -> Self {
        self.arguments(&["--user", &format!("{id}:{token}")])
    }

    /// `NAME.pem` and `NAME-key.pem`.
    pub(crate) fn identity(self, server: &Server, name: &str) -> Self {
        let certificate = server.path(&format!("{name}.pem")).display().to_string();
        let key = server.path(&format!("{name}-key.pem")).display().to_string();
        self.arguments(&["--cert", &certificate, "--key", &key])
    }

    /// Posts bytes as a certificate request.
    pub(crate) async fn post(self, body: &[u8]) -> Answer {
        self.arguments(&["--header", "Content-Type: application/pkcs10"])
            .post_plain(body)
            .await
    }

    /// Posts bytes as whatever the arguments so far say.
    pub(crate) async fn post_plain(self, body: &[u8]) -> Answer {
        let file = self.answer.with_extension("body");
        std::fs::write(&file, body).unwrap();
        let argument = format!("@{}", file.display());
        self.arguments(&["--data-binary", &argument]).run().await.unwrap()
    }

    pub(crate) async fn get(self) -> Answer {
        self.run().await.unwrap()
    }

    /// The answer, or what `curl` said when there was none.
    pub(crate) async fn run(self) -> Result<Answer, String> {
        let heads = self.answer.with_extension("heads");
        let (heads_path, answer_path) = (heads.display().to_string(), self.answer.display().to_string());
        drop(std::fs::remove_file(&self.answer));
        let url = self.url.clone();
        let curl = self.arguments(&["--dump-header", &heads_path, "--output", &answer_path, &url]);
        let output = run("curl", &curl.arguments).await;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = std::fs::read_to_string(&heads).unwrap();
        // An interim answer, `100 Continue`, comes before the one that counts.
        let head = text.trim_end().rsplit("\r\n\r\n").next().unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Answer {
            status,
            headers: head.to_owned(),
            body: std::fs::read(&curl.answer).unwrap_or_default(),
        })
    }
}

/// A new key `NAME-key.pem` and a request by `openssl req` in base64, as EST wants it.
pub(crate) async fn request(server: &Server, name: &str, key: &[&str], subject: &str) -> String {
    let key_path = server.path(&format!("{name}-key.pem")).display().to_string();
    let request_path = server.path(&format!("{name}.der")).display().to_string();
    let arguments = [
        &["req", "-new", "-nodes", "-newkey"],
        key,
        &[
            "-keyout",
            &key_path,
            "-subj",
            subject,
            "-outform",
            "DER",
            "-out",
            &request_path,
        ],
    ]
    .concat();
    run_well("openssl", &arguments).await;
    run_well("openssl", &["base64", "-in", &request_path]).await
}

pub(crate) const P256: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// A request for a P-256 key.
pub(crate) async fn simple_request(server: &Server, name: &str) -> String {
    request(server, name, P256, "/CN=whatever").await
}

/// Enrols `id` with `curl`; afterwards `NAME.pem` and `NAME-key.pem` are its identity.
pub(crate) async fn enroll(server: &Server, id: &str, name: &str) -> CertificateInfo {
    let body = simple_request(server, name).await;
    let token = server.token(id);
    let answer = Curl::new(server, "simpleenroll", name)
        .user(id, &token)
        .post(body.as_bytes())
        .await;
    let certificate = answer.certificate();
    std::fs::write(
        server.path(&format!("{name}.pem")),
        inspect::pem(&certificate.der),
    )
    .unwrap();
    server.event().await;
    certificate
}
