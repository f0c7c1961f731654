//! A stock Mosquitto, run from the configuration that Tidegate writes for it.
//!
//! It must be installed (Debian: `mosquitto`); without it these tests fail.

use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use tidegate_broker::mosquitto::Mosquitto;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::identities::Identities;
use crate::serve::PATIENCE;

/// A running Mosquitto at level `mtls`.
pub(crate) struct Stock {
    pub(crate) address: SocketAddr,
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Stock {
    /// Starts with this access control list in the folder of these identities.
    pub(crate) async fn start(identities: &Identities, access_control_list: &str) -> Self {
        // Free a moment ago; nothing else on this machine takes ports so fast.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let configuration = Mosquitto {
            level: "mtls",
            listener: address,
            certificates: Some("."),
            access_control_list: Some("./list"),
        }
        .configuration();
        std::fs::write(identities.path("list"), access_control_list).unwrap();
        std::fs::write(identities.path("conf"), configuration).unwrap();
        let mut child = Command::new("mosquitto")
            .args(["-v", "-c", "conf"])
            .current_dir(identities.path(""))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto is installed");
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut stock = Self { address, child, log };
        stock.wait_for(" running").await;
        stock
    }

    /// Reads the log up to a line with these words.
    pub(crate) async fn wait_for(&mut self, words: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let next = timeout(PATIENCE, self.log.next_line()).await;
            match next.ok().map(Result::unwrap) {
                Some(Some(line)) if line.contains(words) => return line,
                Some(Some(line)) => seen.push(line),
                ended => panic!("no `{words}` in Mosquitto's log ({ended:?}): {seen:#?}"),
            }
        }
    }

    /// SIGHUP, and its effect: certificates, lists and rules are read again.
    pub(crate) async fn reload(&mut self) {
        let id = self.child.id().expect("mosquitto runs").to_string();
        let sent = Command::new("kill").args(["-HUP", &id]).status().await.unwrap();
        assert!(sent.success());
        self.wait_for("Reloading config").await;
    }

    /// Keeps its log from filling the pipe while a test does many things.
    pub(crate) async fn while_it_logs<T>(&mut self, work: impl Future<Output = T>) -> T {
        let drain = async { while let Ok(Some(_)) = self.log.next_line().await {} };
        tokio::select! {
            done = work => done,
            () = drain => panic!("mosquitto has ended"),
        }
    }
}
