//! ws://localhost:8765 as an existing page or program sees it.

use crate::support::{Site, mtls, python, succeed};

/// A stock WebSocket client: prints the first frame, then so many more.
const CLIENT: &str = r#"
import asyncio, json, sys, websockets

async def main():
    async with websockets.connect(f"ws://localhost:{sys.argv[1]}") as socket:
        print(await socket.recv(), flush=True)
        await socket.send('{"type": "ping"}')
        await socket.send('not json')
        await socket.send(b'\x00\x01')
        wanted = {"pong", "valid_message", "attack"}
        while wanted:
            frame = await asyncio.wait_for(socket.recv(), 20)
            kind = json.loads(frame)["type"]
            if kind in wanted:
                wanted.discard(kind)
                print(frame, flush=True)

asyncio.run(main())
"#;

#[test]
fn websocket_client_gets_stats_messages_and_attacks() {
    let site = Site::new("dashboard", "");
    let running = site.start(&["up"]);
    let mut client = python();
    client.args(["-c", CLIENT, &site.ports.events.to_string()]);
    let client = std::thread::spawn(move || succeed(client));
    let key = site.key("device-002");
    let own = [
        mtls("device-002"),
        vec!["--secret-file".into(), key.display().to_string()],
    ]
    .concat();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let mut sequence = 1;
    while !client.is_finished() {
        let first = sequence.to_string();
        let good = [own.clone(), vec!["--first-sequence", &first]].concat();
        site.python_publish(site.ports.mqtts, 2, &good);
        // The same key under another device's name.
        let forged = mtls("device-001");
        let forged: Vec<&str> = forged.iter().map(String::as_str).collect();
        let secret = key.display().to_string();
        site.python_publish(
            site.ports.mqtts,
            1,
            &[forged, vec!["--secret-file", &secret]].concat(),
        );
        sequence += 1;
    }
    let frames = crate::support::json_lines(&client.join().unwrap());
    assert_eq!(frames[0]["type"], "stats_update");
    for name in ["total", "valid", "rejected", "ai_anomalies"] {
        assert!(frames[0]["data"][name].is_u64(), "{name}");
    }
    let of = |kind: &str| &frames.iter().find(|frame| frame["type"] == kind).unwrap()["data"];
    let valid = of("valid_message");
    assert_eq!(valid["device_id"], "HYDROLOGIC-Device-002");
    assert_eq!(valid["zone"], "pool_spa");
    assert_eq!(valid["topic"], "hydroficient/grandmarina/device-002/sensors");
    assert_eq!(valid["flow_rate_lpm"], valid["flow_rate_gpm"]);
    assert!(valid["pressure_psi"].is_f64() && valid["valve_position"].is_f64());
    assert_eq!(valid["timestamp"].as_str().unwrap().len(), "HH:MM:SS".len());
    let attack = of("attack");
    assert_eq!(attack["attack_type"], "Message Tampering");
    assert!(attack["reasons"].is_array() && attack["description"].is_string());
    drop(running);
}
