use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::{Authority, Issued};
use tidegate_pki::profile::Profile;

const NOW: Timestamp = Timestamp::from_micros(1_780_000_000_000_000);

/// Does so many steps and then none: what a crash leaves.
#[derive(Debug)]
struct Cut {
    left: usize,
}

impl Cut {
    fn step(&mut self) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("cut"))?;
        Ok(())
    }
}

impl Disk for Cut {
    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step().and_then(|()| FileSystem.make_folder(path))
    }

    fn write(&mut self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        // A file may be there in part.
        FileSystem.write(path, &bytes[..bytes.len() / 2], mode)?;
        self.step()?;
        fs::remove_file(path)?;
        FileSystem.write(path, bytes, mode)
    }

    fn link(&mut self, target: &Path, path: &Path) -> io::Result<()> {
        self.step().and_then(|()| FileSystem.link(target, path))
    }

    fn sync_names(&mut self, folder: &Path) -> io::Result<()> {
        self.step().and_then(|()| FileSystem.sync_names(folder))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.step().and_then(|()| FileSystem.remove(path))
    }

    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step().and_then(|()| FileSystem.remove_folder(path))
    }
}

struct Site {
    authority: Authority,
    folder: TempDir,
}

fn device() -> DeviceId {
    DeviceId::new("device-001").unwrap()
}

impl Site {
    fn new() -> Self {
        let site = Self {
            authority: Authority::generate(NOW).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(site.files().ca(), site.authority.certificate_pem()).unwrap();
        site
    }

    fn files(&self) -> IdentityFiles {
        IdentityFiles::new(self.folder.path(), &device()).unwrap()
    }

    fn issue(&self) -> Issued {
        self.authority.issue(&Profile::device(device()), NOW).unwrap()
    }

    fn install(&self, pair: &Issued, disk: impl Disk + 'static) -> Result<IdentityFiles, EnrollError> {
        let prepared = self.files().prepare_on(Box::new(disk), &pair.key_pem)?;
        prepared.commit(&inspect::from_pem(&pair.certificate_pem, Path::new("test"))?)
    }

    /// What other programs see under the two names, and whether that is one pair of rustls.
    fn seen(&self) -> Option<String> {
        let files = self.files();
        let certificate = fs::read_to_string(files.certificate()).ok()?;
        let identity = Some((files.certificate(), files.key()));
        client_config(&ClientTls {
            ca: files.ca(),
            identity,
        })
        .unwrap();
        files.client_config().unwrap();
        Some(certificate)
    }

    /// Names in the folder and in that of the pairs; numbers of pairs as `n`.
    fn names(&self) -> BTreeMap<String, usize> {
        let mut names = BTreeMap::new();
        for folder in [self.folder.path().to_owned(), self.files().generations()] {
            for entry in fs::read_dir(folder).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let name = if name.parse::<u64>().is_ok() {
                    "n".to_owned()
                } else {
                    name
                };
                *names.entry(name).or_default() += 1;
            }
        }
        names
    }
}

/// Installs a pair over what `before` left, cut after each step in turn; the last run is not cut.
fn cut_everywhere(before: impl Fn(&Site, &Issued), expects_old: bool) {
    for left in 0.. {
        let site = Site::new();
        let (old, new) = (site.issue(), site.issue());
        before(&site, &old);
        let (old_text, new_text) = (old.certificate_pem.trim(), new.certificate_pem.trim());
        let done = site.install(&new, Cut { left }).is_ok();
        let seen = site.seen();
        let seen = seen.as_deref().map(str::trim);
        let old_or_nothing = expects_old.then_some(old_text);
        assert!(
            seen == Some(new_text) || (!done && seen == old_or_nothing),
            "cut after {left} steps: {seen:?}"
        );
        // Whatever is left, the next one goes through and cleans up.
        let next = site.issue();
        site.install(&next, FileSystem).unwrap();
        assert_eq!(
            site.seen().unwrap().trim(),
            next.certificate_pem.trim(),
            "after {left}"
        );
        let names = [
            "ca.pem",
            "current",
            "device-001-key.pem",
            "device-001.d",
            "device-001.pem",
            "lock",
            "n",
        ];
        let expected = names.map(|name| (name.to_owned(), 1)).into();
        assert_eq!(site.names(), expected, "cut after {left} steps");
        if done && left > 20 {
            return;
        }
    }
}

#[test]
fn crash_at_any_step_of_a_renewal_leaves_the_old_pair_or_the_new() {
    cut_everywhere(|site, old| drop(site.install(old, FileSystem).unwrap()), true);
}

#[test]
fn crash_at_any_step_of_a_renewal_of_plain_files_leaves_the_old_pair_or_the_new() {
    cut_everywhere(
        |site, old| old.write(site.folder.path(), "device-001", false).unwrap(),
        true,
    );
}

#[test]
fn crash_at_any_step_of_the_first_enrolment_leaves_nothing_or_the_pair() {
    cut_everywhere(|_, _| {}, false);
}

#[test]
fn plain_files_that_replaced_a_pair_are_what_counts() {
    let site = Site::new();
    site.install(&site.issue(), FileSystem).unwrap();
    let plain = site.issue();
    plain.write(site.folder.path(), "device-001", true).unwrap();
    assert_eq!(site.seen(), Some(plain.certificate_pem));
    let files = site.files();
    assert_eq!(files.pair(), (files.certificate(), files.key()));
    let next = site.issue();
    site.install(&next, FileSystem).unwrap();
    assert_eq!(site.seen().unwrap().trim(), next.certificate_pem.trim());
    assert_ne!(files.pair(), (files.certificate(), files.key()));
}

#[test]
fn key_is_readable_by_its_owner_only_and_the_one_before_is_gone() {
    let site = Site::new();
    let (old, new) = (site.issue(), site.issue());
    site.install(&old, FileSystem).unwrap();
    site.install(&new, FileSystem).unwrap();
    let key = site.files().key();
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        PRIVATE_MODE
    );
    assert_eq!(fs::read_to_string(&key).unwrap(), *new.key_pem);
    assert_eq!(site.names()["n"], 1);
}

#[test]
fn prepared_key_without_a_certificate_goes_and_the_pair_stays() {
    let site = Site::new();
    let old = site.issue();
    site.install(&old, FileSystem).unwrap();
    let prepared = site.files().prepare(&site.issue().key_pem).unwrap();
    assert_eq!(site.names()["n"], 2);
    drop(prepared);
    assert_eq!(site.names()["n"], 1);
    assert_eq!(site.seen().unwrap().trim(), old.certificate_pem.trim());
}

#[test]
fn second_change_at_the_same_time_is_refused() {
    let site = Site::new();
    let prepared = site.files().prepare(&site.issue().key_pem).unwrap();
    let refused = site.files().prepare(&site.issue().key_pem).unwrap_err();
    assert!(matches!(refused, EnrollError::InUse { .. }), "{refused}");
    drop(prepared);
    assert!(site.files().prepare(&site.issue().key_pem).is_ok());
}

#[test]
fn folder_that_was_moved_still_has_its_pair() {
    let site = Site::new();
    site.install(&site.issue(), FileSystem).unwrap();
    let moved = tempfile::tempdir().unwrap();
    let to = moved.path().join("certs");
    fs::rename(site.folder.path(), &to).unwrap();
    let files = IdentityFiles::new(&to, &device()).unwrap();
    files.client_config().unwrap();
    assert_ne!(files.pair().0, files.certificate());
}

#[test]
fn authorities_are_written_when_they_differ_and_left_alone_when_someone_else_wrote_them() {
    let site = Site::new();
    let next = Authority::generate(NOW).unwrap();
    let info = |authority: &Authority| inspect::describe(authority.der().clone(), Path::new("test")).unwrap();
    let files = site.files();
    let before = files.authorities();
    let prepared = site.files().prepare(&site.issue().key_pem).unwrap();
    let one = [info(&site.authority)];
    let both = [info(&next), info(&site.authority)];
    assert!(!prepared.write_authorities(&one, before.as_deref()).unwrap());
    assert!(prepared.write_authorities(&both, before.as_deref()).unwrap());
    assert_eq!(inspect::bundle(&files.ca()).unwrap().len(), 2);
    assert!(!prepared.write_authorities(&one, before.as_deref()).unwrap());
    assert_eq!(inspect::bundle(&files.ca()).unwrap().len(), 2);
    assert!(!files.trusts_none_of(&one));
    assert!(files.trusts_none_of(&[info(&Authority::generate(NOW).unwrap())]));
}

#[test]
fn names_of_other_files_are_refused_and_those_beside_them_taken() {
    let folder = tempfile::tempdir().unwrap();
    let new = |name: &str| IdentityFiles::new(folder.path(), &DeviceId::new(name).unwrap());
    for name in ["ca", "server", "crl", "device-001-key"] {
        assert!(matches!(new(name), Err(EnrollError::Reserved(_))), "{name}");
    }
    for name in ["ca-1", "Server", "device-key-1", "key"] {
        assert!(new(name).is_ok(), "{name}");
    }
}
