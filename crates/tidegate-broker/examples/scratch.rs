//! scratch
#![allow(warnings)]
use std::sync::Arc; use std::path::Path; use std::time::*;
use tidegate_broker::*; use tidegate_pki::tls::*; use tokio::io::*;
struct Open;
impl Gate for Open { async fn admit(&self, _: Incoming) -> Disposition { Disposition::Deliver } fn observe(&self, e: SecurityEvent) { eprintln!("{} {} {} +{}", e.reason, e.peer, e.detail, e.left_out); } }
fn rss() -> u64 { std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmRSS")).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap() }
#[tokio::main(worker_threads = 2)]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let f = Path::new("/tmp/mq");
    match &*a[1] {
        "serve" => {
            let tls = server_config(&ServerTls { certificate: f.join("server.pem"), key: f.join("server-key.pem"), client_auth: None }).unwrap();
            let l = vec![Listener { address: ([127,0,0,1],31883).into(), transport: Transport::Plain, access: Access::Open }, Listener { address: ([127,0,0,1],38883).into(), transport: Transport::Tls, access: Access::Open }];
            let b = Broker::bind(BrokerConfig { listeners: l, tls: Some(tls), limits: Limits::default() }, Arc::new(Open)).unwrap();
            let h = b.handle();
            tokio::spawn(async move { loop { tokio::time::sleep(Duration::from_secs(2)).await; println!("rss {} KiB {:?}", rss(), h.stats()); } });
            b.run(Default::default()).await;
        }
        "idle" => {
            let n: usize = a[2].parse().unwrap();
            let c = client_config(&ClientTls { ca: f.join("ca.pem"), identity: None }).unwrap();
            let mut v = vec![];
            let t = Instant::now();
            for i in 0..n {
                let s = tokio::net::TcpStream::connect("127.0.0.1:38883").await.unwrap();
                let mut s = tokio_rustls::TlsConnector::from(c.clone()).connect("localhost".try_into().unwrap(), s).await.unwrap();
                let id = format!("c{i:05}");
                let mut p = vec![0x10, 12 + 6, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 6]; p.extend(id.as_bytes()); s.write_all(&p).await.unwrap();
                let mut r = [0;4]; s.read_exact(&mut r).await.unwrap(); v.push(s);
            }
            println!("{n} in {:?}", t.elapsed());
            tokio::time::sleep(Duration::from_secs(40)).await;
        }
        "mute" => {
            let n: usize = a[2].parse().unwrap();
            let mut v = vec![];
            let t = Instant::now();
            for i in 0..n { v.push(tokio::net::TcpStream::connect("127.0.0.1:31883").await.unwrap()); }
            println!("{n} mute in {:?}", t.elapsed());
            let t = Instant::now();
            let mut s = tokio::net::TcpStream::connect("127.0.0.1:31883").await.unwrap();
            s.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a").await.unwrap();
            let mut r = [0;4]; s.read_exact(&mut r).await.unwrap();
            println!("good client in {:?}", t.elapsed());
            let t = Instant::now();
            for s in &mut v { let _ = s.read(&mut [0]).await; }
            println!("all closed after {:?}", t.elapsed());
        }
        _ => {}
    }
}
