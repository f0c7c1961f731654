//! Writing the registry file: only what changed, so that comments and order stay as people wrote them.

use super::{DeviceEntry, DevicesFile, pieces};
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

const HEADER: &str = "\
# The devices that may speak. Everything else is refused.
#
# An entry ties a device's three names together; nothing else may equate them:
#   id          the identity in its certificate
#   topic       its segment of the telemetry topic
#   message_id  the device_id that its messages carry
# `tidegate devices add` writes entries and `tidegate keys` changes their epochs; editing by hand is
# fine too. A running Tidegate takes changes within a second; new devices go to the end.

";

impl DevicesFile {
    /// Writes what changed since [`Self::load`], so that a reader sees the old file or the new one,
    /// also after a power cut. A file that is not there yet is written whole.
    ///
    /// # Errors
    /// Also when somebody else has changed the file since it was read.
    pub(crate) fn save(&mut self, path: &Path) -> Result<()> {
        // A link stays a link: what it points to is replaced.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let cannot = || format!("cannot write {}", path.display());
        let folder = File::open(folder).with_context(cannot)?;
        // Held until the end: two commands at once must not each take back what the other wrote.
        folder.lock().with_context(cannot)?;
        let text = match &self.text {
            Some(before) => {
                if fs::read_to_string(&target).with_context(cannot)? != *before {
                    bail!(
                        "{} was changed by somebody else meanwhile; nothing was written, run the command again",
                        path.display()
                    );
                }
                self.changed(before).with_context(cannot)?
            }
            None if target.exists() => bail!("{} is there already; it is not overwritten", path.display()),
            None => {
                let text = toml::to_string(self).context("cannot write the registry as TOML")?;
                format!("{HEADER}{text}")
            }
        };
        replace(&target, &text, &folder).with_context(cannot)?;
        self.text = Some(text);
        Ok(())
    }

    /// `before` with what is different in `self`.
    fn changed(&self, before: &str) -> Result<String> {
        let earlier = Self::parse(before)?;
        if earlier.zones != self.zones || earlier.devices.len() > self.devices.len() {
            bail!("zones are not changed and devices not removed by commands");
        }
        let text = match pieces::entries(before, earlier.devices.len()) {
            Some(entries) => self.changed_in_pieces(before, &earlier, &entries)?,
            None => self.changed_as_a_whole(before, &earlier)?,
        };
        if Self::parse(&text)?.devices != self.devices {
            bail!("the change cannot be written into this file; edit it by hand");
        }
        Ok(text)
    }

    /// Only the entries that differ are read as TOML, since its tree takes several kilobytes for each.
    fn changed_in_pieces(&self, before: &str, earlier: &Self, entries: &[Range<usize>]) -> Result<String> {
        let mut text = String::with_capacity(before.len() + 256);
        let mut copied = 0;
        for ((earlier, entry), place) in earlier.devices.iter().zip(&self.devices).zip(entries) {
            if earlier != entry {
                text.push_str(&before[copied..place.start]);
                copied = place.end;
                let mut document: DocumentMut = before[place.clone()].parse()?;
                let table = document.get_mut("device").and_then(|list| table_at(list, 0));
                change(
                    table.context("an entry is no table")?,
                    &members(earlier)?,
                    members(entry)?,
                );
                text.push_str(&document.to_string());
            }
        }
        text.push_str(&before[copied..]);
        for entry in &self.devices[earlier.devices.len()..] {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            write!(text, "\n[[device]]\n{}", members(entry)?)?;
        }
        Ok(text)
    }

    fn changed_as_a_whole(&self, before: &str, earlier: &Self) -> Result<String> {
        let mut document: DocumentMut = before.parse()?;
        let list = document
            .entry("device")
            .or_insert(Item::ArrayOfTables(Default::default()));
        for (position, entry) in self.devices.iter().enumerate() {
            match earlier.devices.get(position) {
                Some(earlier) if earlier == entry => {}
                Some(earlier) => {
                    let table = table_at(list, position).context("`device` is no list of tables")?;
                    change(table, &members(earlier)?, members(entry)?);
                }
                None => push(list, members(entry)?)?,
            }
        }
        Ok(document.to_string())
    }
}

/// The device at a position, whether the file says `[[device]]` or `device = [{ … }]`.
fn table_at(list: &mut Item, position: usize) -> Option<&mut dyn TableLike> {
    match list {
        Item::ArrayOfTables(tables) => tables.get_mut(position).map(|table| table as &mut dyn TableLike),
        Item::Value(Value::Array(array)) => array
            .get_mut(position)?
            .as_inline_table_mut()
            .map(|table| table as &mut dyn TableLike),
        _ => None,
    }
}

fn push(list: &mut Item, members: Table) -> Result<()> {
    match list {
        Item::ArrayOfTables(tables) => {
            let mut members = members;
            // One empty line before each entry, as in a file that we write whole.
            members.decor_mut().set_prefix("\n");
            tables.push(members);
        }
        Item::Value(Value::Array(array)) => array.push(members.into_inline_table()),
        _ => bail!("`device` is no list of tables"),
    }
    Ok(())
}

/// An entry as the file would say it.
fn members(entry: &DeviceEntry) -> Result<Table> {
    let text = toml::to_string(entry).context("cannot write the device as TOML")?;
    Ok(text.parse::<DocumentMut>()?.as_table().clone())
}

/// Sets what differs between `earlier` and `now`. A value keeps the comment behind it.
fn change(table: &mut dyn TableLike, earlier: &Table, now: Table) {
    for (name, _) in earlier {
        if !now.contains_key(name) {
            table.remove(name);
        }
    }
    for (name, item) in now {
        let Item::Value(mut value) = item else { continue };
        if earlier
            .get(&name)
            .is_some_and(|item| item.to_string() == value.to_string())
        {
            continue;
        }
        match table.get_mut(&name).and_then(Item::as_value_mut) {
            Some(former) => {
                *value.decor_mut() = former.decor().clone();
                *former = value;
            }
            None => {
                table.insert(&name, Item::Value(value));
            }
        }
    }
}

/// Puts `text` in the place of a file: whole or not at all, and with the file's permissions.
fn replace(target: &Path, text: &str, folder: &File) -> std::io::Result<()> {
    let mode = fs::metadata(target).map_or(0o644, |metadata| metadata.permissions().mode() & 0o777);
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = target.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, target));
    if written.is_err() {
        // What is left of it helps nobody, and a full disk needs the room.
        drop(fs::remove_file(&temporary));
    }
    written.and_then(|()| folder.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN_BY_HAND: &str = "\
# ours
[[zone]]
id = \"kitchen\"
name = \"Kitchen\"

[[device]]
# the one at the door
topic = \"device-001\"
id = 'device-001' # quoted by hand
message_id = \"HYDROLOGIC-Device-001\"
zone = \"kitchen\"
key_epoch = 7     # since the flood

[[device]]
id = \"device-002\"
topic = \"device-002\"
message_id = \"HYDROLOGIC-Device-002\"
zone = \"kitchen\"
# the end
";

    fn registry(text: &str) -> (tempfile::TempDir, std::path::PathBuf, DevicesFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.toml");
        fs::write(&path, text).unwrap();
        let file = DevicesFile::load(&path).unwrap();
        (folder, path, file)
    }

    #[test]
    fn only_what_changed_is_written_and_comments_stay() {
        let (_folder, path, mut file) = registry(WRITTEN_BY_HAND);
        file.devices[0].key_epoch = 8;
        file.devices[0].lowest_key_epoch = 7;
        file.devices.push(DeviceEntry::new("device-003", "kitchen"));
        file.save(&path).unwrap();
        let expected = WRITTEN_BY_HAND
            .replace("key_epoch = 7     # since", "key_epoch = 8     # since")
            .replace("# since the flood\n", "# since the flood\nlowest_key_epoch = 7\n")
            + "\n[[device]]\nid = \"device-003\"\ntopic = \"device-003\"\nmessage_id = \"HYDROLOGIC-Device-003\"\n\
               zone = \"kitchen\"\nclass = \"water-inlet\"\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(DevicesFile::load(&path).unwrap().devices, file.devices);
        // And back again: what is as by default is taken out.
        file.devices[0].lowest_key_epoch = 0;
        file.save(&path).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("lowest_key_epoch"));
    }

    #[test]
    fn devices_written_as_one_list_are_changed_in_place() {
        let text = "zone = [{ id = \"a\", name = \"A\" }]\n\
                    device = [{ id = \"d\", topic = \"d\", message_id = \"d\", zone = \"a\" }] # all\n";
        let (_folder, path, mut file) = registry(text);
        file.devices[0].enabled = false;
        file.devices.push(DeviceEntry::new("e", "a"));
        file.save(&path).unwrap();
        let now = fs::read_to_string(&path).unwrap();
        assert!(now.starts_with("zone = [{") && now.ends_with("# all\n"), "{now}");
        assert_eq!(DevicesFile::load(&path).unwrap().devices, file.devices);
    }

    #[test]
    fn entries_beside_a_text_of_several_lines_are_changed_too() {
        let text = WRITTEN_BY_HAND.replace("name = \"Kitchen\"", "name = \"\"\"\n[[device]]\"\"\"");
        let (_folder, path, mut file) = registry(&text);
        file.devices[1].enabled = false;
        file.devices.push(DeviceEntry::new("device-003", "kitchen"));
        file.save(&path).unwrap();
        let now = fs::read_to_string(&path).unwrap();
        assert!(
            now.contains("# the one at the door") && now.contains("# since the flood"),
            "{now}"
        );
        assert_eq!(DevicesFile::load(&path).unwrap().devices, file.devices);
    }

    #[test]
    fn file_that_somebody_else_changed_meanwhile_is_left_alone() {
        let (_folder, path, mut file) = registry(WRITTEN_BY_HAND);
        let theirs = WRITTEN_BY_HAND.replace("# ours", "# theirs");
        fs::write(&path, &theirs).unwrap();
        file.devices[0].enabled = false;
        let error = file.save(&path).unwrap_err().to_string();
        assert!(error.contains("somebody else"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
        assert!(!path.with_extension("toml.new").exists());
    }

    #[test]
    fn mode_and_link_of_the_file_stay() {
        let (folder, path, _) = registry(WRITTEN_BY_HAND);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link.toml");
        std::os::unix::fs::symlink("devices.toml", &link).unwrap();
        let mut file = DevicesFile::load(&link).unwrap();
        file.devices[0].enabled = false;
        file.save(&link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::read_to_string(&path).unwrap().contains("enabled = false"));
    }

    #[test]
    fn new_file_is_written_whole_and_never_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.toml");
        let mut file = DevicesFile::for_demo(2);
        file.save(&path).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with("# The devices"));
        assert_eq!(DevicesFile::load(&path).unwrap().devices, file.devices);
        let error = DevicesFile::for_demo(3).save(&path).unwrap_err().to_string();
        assert!(error.contains("there already"), "{error}");
    }
}
