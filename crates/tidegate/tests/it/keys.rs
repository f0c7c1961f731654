//! The life of keys in a running Tidegate: rotated, retired, and taken from a changed registry
//! without a restart.

use crate::support::{Site, mtls, wait_for};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

/// What a running Tidegate prints when it has taken a changed registry.
const TAKEN: &str = "Took the changed registry";
/// The reason code of a refused message.
const REFUSED: u64 = 0x87;

/// A publisher of one device with one of its keys.
struct Publisher<'s> {
    site: &'s Site,
    device: u32,
    next: u32,
}

impl<'s> Publisher<'s> {
    fn new(site: &'s Site, device: u32) -> Self {
        Self {
            site,
            device,
            next: 1,
        }
    }

    fn options(&mut self, key: &Path, epoch: u16, count: u32) -> Vec<String> {
        let own = mtls(&format!("device-{:03}", self.device));
        let signed = [
            ("--secret-file", key.display().to_string()),
            ("--epoch", epoch.to_string()),
            ("--first-sequence", self.next.to_string()),
            ("--count", count.to_string()),
        ];
        self.next += count;
        let signed = signed
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value]);
        own.into_iter().chain(signed).collect()
    }

    /// The reason codes of `count` messages, signed with the key of this epoch.
    fn publish(&mut self, key: &Path, epoch: u16, count: u32) -> Vec<u64> {
        let options = self.options(key, epoch, count);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.site
            .python_publish(self.site.ports.mqtts, self.device, &options)
    }

    fn is_accepted(&mut self, key: &Path, epoch: u16) -> bool {
        all_accepted(&self.publish(key, epoch, 1))
    }
}

fn all_accepted(reasons: &[u64]) -> bool {
    !reasons.is_empty() && reasons.iter().all(|reason| *reason == 0 || *reason == 16)
}

fn count(site: &Site, reason: &str) -> usize {
    let events = site.stored_events();
    events.iter().filter(|event| event["reason"] == reason).count()
}

fn wait_for_reason(site: &Site, reason: &str) {
    wait_for(reason, || count(site, reason) > 0);
}

fn error_of(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// How a device's key stands, by `tidegate keys list`.
fn standing(site: &Site, device: &str) -> serde_json::Value {
    serde_json::from_str(&site.succeed(&["keys", "list", device, "--format", "json"])).unwrap()
}

/// Changes the registry file as an editor would: in place.
fn edit(site: &Site, change: impl Fn(&str) -> String) {
    let path = site.path("devices.toml");
    let before = fs::read_to_string(&path).unwrap();
    let after = change(&before);
    assert_ne!(before, after);
    fs::write(path, after).unwrap();
}

#[test]
fn rotation_refuses_no_message_and_the_first_with_the_new_key_retires_the_old_one() {
    let site = Site::new("signed", "");
    let (running, lines) = site.start_and_listen(&["up"], &site.path("up.log"));
    let old = site.key("device-001");
    let mut publisher = Publisher::new(&site, 1);
    assert!(publisher.is_accepted(&old, 0));
    assert_eq!(standing(&site, "device-001")["state"], "current");

    // The publisher goes on with the old key over the rotation.
    let options = publisher.options(&old, 0, 400);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let meanwhile = site
        .python_publisher(site.ports.mqtts, 1, &options)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    site.succeed(&["keys", "rotate", "device-001", "--out", "new-keys"]);
    lines.wait_for(TAKEN);
    let meanwhile = meanwhile.wait_with_output().unwrap();
    assert!(meanwhile.status.success());
    let acknowledged = crate::support::json_lines(&String::from_utf8(meanwhile.stdout).unwrap());
    let reasons: Vec<u64> = acknowledged
        .iter()
        .map(|line| line["reason"].as_u64().unwrap())
        .collect();
    assert!(reasons.len() == 400 && all_accepted(&reasons), "{reasons:?}");
    assert!(publisher.is_accepted(&old, 0));
    assert_eq!(
        standing(&site, "device-001")["state"],
        "rotating: epoch 1 not yet seen"
    );

    let new = site.path("new-keys/device-001-1.key");
    assert_eq!((mode(&new), mode(&site.path("new-keys"))), (0o600, 0o700));
    assert!(publisher.is_accepted(&new, 1));
    assert_eq!(count(&site, "key_retired"), 0);
    assert_eq!(publisher.publish(&old, 0, 1), [REFUSED]);
    wait_for_reason(&site, "key_retired");
    assert!(publisher.is_accepted(&new, 1));
    let after = standing(&site, "device-001");
    assert_eq!(
        (
            &after["state"],
            &after["lowest_accepted_epoch"],
            &after["last_seen_epoch"]
        ),
        (&"current".into(), &1.into(), &1.into())
    );

    // What the guard has retired stays retired after a crash.
    running.kill();
    let running = site.start(&["up"]);
    let retired = count(&site, "key_retired");
    assert_eq!(publisher.publish(&old, 0, 1), [REFUSED]);
    wait_for("the old key to be refused again", || {
        count(&site, "key_retired") > retired
    });
    assert!(publisher.is_accepted(&new, 1));
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn second_rotation_waits_for_the_first_to_be_seen_unless_forced() {
    let site = Site::new("signed", "");
    site.succeed(&["certs", "init"]);
    let before = fs::read_to_string(site.path("devices.toml")).unwrap();
    site.succeed(&["keys", "rotate", "device-001", "--dry-run"]);
    assert_eq!(fs::read_to_string(site.path("devices.toml")).unwrap(), before);

    site.succeed(&["keys", "rotate", "device-001"]);
    let error = error_of(&site.run(&["keys", "rotate", "device-001", "--out", "new-keys"]));
    assert!(
        error.contains("has not been seen with its key of epoch 1")
            && error.contains("devices key device-001"),
        "{error}"
    );
    assert!(!site.path("new-keys").exists());
    // All that can be rotated are, and the one that cannot is named.
    let all = site.run(&["keys", "rotate", "--all"]);
    assert!(all.status.success());
    let said = String::from_utf8(all.stderr).unwrap();
    assert!(
        said.contains("1 left out") && said.contains("device-001"),
        "{said}"
    );
    assert_eq!(standing(&site, "device-001")["newest_epoch"], 1);
    assert_eq!(standing(&site, "device-002")["newest_epoch"], 1);

    site.succeed(&["keys", "rotate", "device-001", "--force"]);
    let forced = standing(&site, "device-001");
    assert_eq!(
        (&forced["newest_epoch"], &forced["lowest_accepted_epoch"]),
        (&2.into(), &1.into())
    );
    edit(&site, |text| {
        text.replacen("key_epoch = 2", "key_epoch = 65535", 1)
    });
    let error = error_of(&site.run(&["keys", "rotate", "device-001", "--force"]));
    assert!(error.contains("65535, the last one"), "{error}");
}

#[test]
fn key_of_a_stolen_device_is_refused_without_a_restart() {
    let site = Site::new("signed", "");
    let (running, lines) = site.start_and_listen(&["up"], &site.path("up.log"));
    let stolen = site.key("device-001");
    let mut publisher = Publisher::new(&site, 1);
    assert!(publisher.is_accepted(&stolen, 0));

    let said = site.run(&["keys", "retire", "device-001", "--stolen", "--out", "new-keys"]);
    assert!(said.status.success());
    assert!(
        String::from_utf8(said.stderr)
            .unwrap()
            .contains("revoke its certificate")
    );
    lines.wait_for(TAKEN);
    assert_eq!(publisher.publish(&stolen, 0, 1), [REFUSED]);
    wait_for_reason(&site, "key_retired");
    let state = standing(&site, "device-001")["state"].to_string();
    assert!(state.contains("waiting: epoch 1 not yet seen"), "{state}");
    // Not naming the epoch does not help.
    assert_eq!(count(&site, "bad_mac"), 0);
    let own = mtls("device-001");
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let nameless = ["--secret-file", stolen.to_str().unwrap(), "--first-sequence", "9"];
    let nameless = site.python_publish(site.ports.mqtts, 1, &[&own[..], &nameless].concat());
    assert_eq!(nameless, [REFUSED]);
    wait_for_reason(&site, "bad_mac");

    publisher.next = 20;
    assert!(publisher.is_accepted(&site.path("new-keys/device-001-1.key"), 1));
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn retiring_asks_before_it_cuts_a_device_off() {
    let site = Site::new("signed", "");
    let (running, lines) = site.start_and_listen(&["up"], &site.path("up.log"));
    let old = site.key("device-001");
    let mut publisher = Publisher::new(&site, 1);
    assert!(publisher.is_accepted(&old, 0));
    site.succeed(&["keys", "rotate", "device-001"]);
    lines.wait_for(TAKEN);

    let error = error_of(&site.run(&["keys", "retire", "device-001"]));
    assert!(
        error.contains("last signed with an older key") && error.contains("--yes"),
        "{error}"
    );
    assert!(publisher.is_accepted(&old, 0));
    let error = error_of(&site.run(&["keys", "retire", "device-001", "--below", "2"]));
    assert!(error.contains("newest key has epoch 1"), "{error}");
    site.succeed(&["keys", "retire", "device-001", "--yes"]);
    lines.wait_for(TAKEN);
    assert_eq!(publisher.publish(&old, 0, 1), [REFUSED]);
    wait_for_reason(&site, "key_retired");
    // Nobody is asked about a device that was never seen.
    site.succeed(&["keys", "retire", "device-002"]);
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn device_with_a_key_file_is_rotated_to_a_new_file_beside_it() {
    let site = Site::new("signed", "");
    site.succeed(&["certs", "init"]);
    fs::create_dir(site.path("keys")).unwrap();
    let old = site.path("keys/first.key");
    fs::write(&old, b"provisioned elsewhere").unwrap();
    edit(&site, |text| {
        text.replacen(
            "id = \"device-001\"",
            "id = \"device-001\"\nkey_file = \"keys/first.key\"",
            1,
        )
    });
    // Readable by others, and then not.
    fs::set_permissions(&old, fs::Permissions::from_mode(0o644)).unwrap();
    let error = error_of(&site.run(&["up"]));
    assert!(
        error.contains("chmod 600") && error.contains("first.key"),
        "{error}"
    );
    fs::set_permissions(&old, fs::Permissions::from_mode(0o600)).unwrap();

    let (running, lines) = site.start_and_listen(&["up"], &site.path("up.log"));
    let mut publisher = Publisher::new(&site, 1);
    assert!(publisher.is_accepted(&old, 0));
    site.succeed(&["keys", "rotate", "device-001"]);
    lines.wait_for(TAKEN);
    let new = site.path("keys/device-001-1.key");
    assert_eq!(mode(&new), 0o600);
    assert!(publisher.is_accepted(&old, 0));
    assert!(publisher.is_accepted(&new, 1));
    assert_eq!(publisher.publish(&old, 0, 1), [REFUSED]);

    // The next one is provisioned elsewhere as well.
    let third = site.path("third.key");
    fs::copy(&new, &third).unwrap();
    fs::set_permissions(&third, fs::Permissions::from_mode(0o600)).unwrap();
    let given = [
        "keys",
        "rotate",
        "device-001",
        "--key-file",
        third.to_str().unwrap(),
    ];
    let error = error_of(&site.run(&given));
    assert!(error.contains("has already"), "{error}");
    fs::write(&third, b"the next, from elsewhere").unwrap();
    site.succeed(&given);
    lines.wait_for(TAKEN);
    assert!(publisher.is_accepted(&third, 2));
    let said = site.succeed(&["keys", "retire", "device-001"]);
    assert!(said.contains("device-001-1.key is no longer used"), "{said}");
    lines.wait_for(TAKEN);
    assert!(publisher.is_accepted(&third, 2));
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn changes_are_taken_while_running_and_a_broken_registry_is_not() {
    let site = Site::new("signed", "");
    let (running, lines) = site.start_and_listen(&["up"], &site.path("up.log"));
    let key = site.key("device-001");
    let mut publisher = Publisher::new(&site, 1);
    assert!(publisher.is_accepted(&key, 0));
    let whole = fs::read_to_string(site.path("devices.toml")).unwrap();

    // Broken, without a device that was there, and renamed: the old one stays, and everybody is told.
    let first = whole.find("[[device]]").unwrap();
    let second = first + 1 + whole[first + 1..].find("[[device]]").unwrap();
    let without_first = format!("{}{}", &whole[..first], &whole[second..]);
    let renamed = whole.replace("topic = \"device-001\"", "topic = \"door\"");
    for (number, (broken, said)) in [
        (
            format!("{whole}\n[[device"),
            "not a valid registry: TOML parse error at line",
        ),
        (
            without_first,
            "device-001` (number 1 in the registry) was removed or moved",
        ),
        (renamed, "the topic of device `device-001` changed"),
        (
            whole.replace("zone = \"kitchen\"", "zone = \"attic\""),
            "not defined",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(site.path("devices.toml"), broken).unwrap();
        wait_for(said, || count(&site, "registry_rejected") > number);
        let events = site.stored_events();
        let refused = events
            .iter()
            .filter(|event| event["reason"] == "registry_rejected");
        let details: Vec<_> = refused.map(|event| event["detail"].to_string()).collect();
        assert!(
            details.iter().any(|detail| detail.contains(said)),
            "{said}: {details:?}"
        );
        assert!(publisher.is_accepted(&key, 0));
    }
    let log = fs::read_to_string(site.path("up.log")).unwrap();
    assert!(log.contains("the old one stays in use"), "{log}");

    let disabled = whole.replacen("id = \"device-001\"", "id = \"device-001\"\nenabled = false", 1);
    fs::write(site.path("devices.toml"), &disabled).unwrap();
    lines.wait_for(TAKEN);
    assert_eq!(publisher.publish(&key, 0, 1), [REFUSED]);
    wait_for_reason(&site, "device_disabled");
    fs::write(site.path("devices.toml"), &whole).unwrap();
    lines.wait_for(TAKEN);
    assert!(publisher.is_accepted(&key, 0));

    // SIGHUP asks for it although nothing has changed.
    running.signal("HUP");
    lines.wait_for(TAKEN);
    assert!(publisher.is_accepted(&key, 0));
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn appended_device_publishes_without_a_restart_and_keeps_its_state_over_one() {
    let site = Site::new("ai", "");
    let (running, lines) = site.start_and_listen(&["up"], &site.path("up.log"));
    site.succeed(&["devices", "add", "device-013", "--zone", "kitchen"]);
    let said = lines.wait_for(TAKEN);
    assert!(said.ends_with("13 devices, 1 of them new"), "{said}");
    let key = site.key("device-013");
    let mut publisher = Publisher::new(&site, 13);
    assert!(publisher.is_accepted(&key, 0));
    wait_for("its reading", || {
        site.stored_readings()
            .iter()
            .any(|reading| reading["device"] == "device-013")
    });
    running.kill();

    let running = site.start(&["up"]);
    assert_eq!(standing(&site, "device-013")["last_seen_epoch"], 0);
    assert!(publisher.is_accepted(&key, 0));
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn gateway_beside_another_broker_takes_a_rotation_too() {
    let site = Site::new("signed", "");
    site.succeed(&["certs", "init"]);
    site.succeed(&["configs", "write"]);
    let _broker = site.mosquitto("mosquitto_signed.conf", site.ports.mqtts);
    let (running, lines) = site.start_and_listen(&["gateway"], &site.path("gateway.log"));
    let old = site.key("device-001");
    let mut publisher = Publisher::new(&site, 1);
    let epoch_seen = || standing(&site, "device-001")["last_seen_epoch"].as_u64();
    // What comes before the gateway has subscribed, its broker keeps for nobody.
    wait_for("the first message", || {
        publisher.publish(&old, 0, 1);
        epoch_seen() == Some(0)
    });
    site.succeed(&["keys", "rotate", "device-001", "--out", "new-keys"]);
    lines.wait_for(TAKEN);
    publisher.publish(&site.path("new-keys/device-001-1.key"), 1, 1);
    wait_for("the first message with the new key", || epoch_seen() == Some(1));
    publisher.publish(&old, 0, 1);
    wait_for_reason(&site, "key_retired");
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn shared_secret_is_not_rotated_and_warned_of_everywhere() {
    let site = Site::new("signed", "[keys]\nlegacy_shared_secret = \"shared.key\"");
    site.succeed(&["certs", "init"]);
    let secret = site.path("shared.key");
    fs::write(&secret, b"one-for-all").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    for command in [["keys", "rotate", "device-001"], ["keys", "retire", "device-001"]] {
        let error = error_of(&site.run(&command));
        assert!(
            error.contains("all devices share") && error.contains("key_file"),
            "{error}"
        );
    }
    assert_eq!(standing(&site, "device-001")["source"], "shared secret");
    assert!(site.succeed(&["check"]).contains("share one secret"));
    let log = site.path("up.log");
    let (running, lines) = site.start_and_listen(&["up"], &log);
    assert!(fs::read_to_string(&log).unwrap().contains("share one secret"));

    // The way out of it, device by device and without a gap.
    let mut publisher = Publisher::new(&site, 1);
    assert!(publisher.is_accepted(&secret, 0));
    let own = site.path("own.key");
    fs::write(&own, b"its own from now on").unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).unwrap();
    edit(&site, |text| {
        let lines =
            "id = \"device-001\"\nkey_file = \"own.key\"\nprevious_key_file = \"shared.key\"\nkey_epoch = 1";
        text.replacen("id = \"device-001\"", lines, 1)
    });
    lines.wait_for(TAKEN);
    assert!(publisher.is_accepted(&secret, 0));
    assert!(publisher.is_accepted(&own, 1));
    assert_eq!(publisher.publish(&secret, 0, 1), [REFUSED]);
    assert_eq!(running.interrupt(), 0);

    // Without its name in the configuration the secret is worth nothing.
    let path = site.path("tidegate.toml");
    let without = fs::read_to_string(&path)
        .unwrap()
        .replace("legacy_shared_secret", "# legacy_shared_secret");
    fs::write(path, without).unwrap();
    let running = site.start(&["up"]);
    assert_eq!(Publisher::new(&site, 2).publish(&secret, 0, 1), [REFUSED]);
    wait_for_reason(&site, "bad_mac");
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn no_key_shows_in_any_output_or_log() {
    let site = Site::new("signed", "");
    let log = site.path("up.log");
    let (running, lines) = site.start_and_listen(&["--log", "trace", "up"], &log);
    let old = site.key("device-001");
    let mut publisher = Publisher::new(&site, 1);
    assert!(publisher.is_accepted(&old, 0));
    let mut said = Vec::new();
    let mut keys: Vec<PathBuf> = vec![site.path("secrets/root.key"), old.clone()];
    for (number, arguments) in [
        &["keys", "list"][..],
        &["keys", "rotate", "device-001", "--out", "new-keys"],
        &["keys", "rotate", "device-001"],
        &["keys", "retire", "device-001", "--yes"],
        &["keys", "retire", "device-002", "--stolen", "--out", "new-keys"],
        &["devices", "list", "--format", "json"],
        &["devices", "key", "device-003", "--out", "third.key"],
        &["check"],
        &["events", "--format", "json"],
    ]
    .into_iter()
    .enumerate()
    {
        let output = site.run(&[&["--log", "trace"][..], arguments].concat());
        // The second rotation is refused, which is an output too.
        assert_eq!(output.status.success(), number != 2, "{arguments:?}");
        said.extend([output.stdout, output.stderr].concat());
    }
    lines.wait_for(TAKEN);
    assert!(publisher.is_accepted(&site.path("new-keys/device-001-1.key"), 1));
    assert_eq!(publisher.publish(&old, 0, 1), [REFUSED]);
    assert_eq!(running.interrupt(), 0);
    said.extend(fs::read(&log).unwrap());
    said.extend(fs::read(site.path("devices.toml")).unwrap());
    assert!(said.len() > 10_000, "the logs are there");

    keys.extend(
        [
            "new-keys/device-001-1.key",
            "new-keys/device-002-1.key",
            "third.key",
        ]
        .map(|key| site.path(key)),
    );
    let said = String::from_utf8_lossy(&said);
    for path in keys {
        let key = fs::read(&path).unwrap();
        assert_eq!(key.len(), 32);
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{key:?}");
        let forms = [
            STANDARD.encode(&key),
            STANDARD_NO_PAD.encode(&key),
            URL_SAFE_NO_PAD.encode(&key),
            hex.to_uppercase(),
            list.trim_matches(['[', ']']).to_owned(),
            // A part of it would be bad enough.
            hex[..16].to_owned(),
        ];
        for form in forms {
            assert!(!said.contains(&form), "{} shows", path.display());
        }
    }
}
