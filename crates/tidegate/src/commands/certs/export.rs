//! `tidegate certs export`: certificate, key and CA in one PKCS#12 file.

use super::{certificate_file, day};
use crate::config::Config;
use crate::setup::CaPaths;
use anyhow::{Context, Result, bail};
use clap::Args;
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;
use tidegate_pki::files::{self, PRIVATE_MODE};
use tidegate_pki::inspect;
use zeroize::Zeroizing;

/// Shortest password: the file is made to be carried around.
const MIN_PASSWORD_CHARS: usize = 8;
/// Longest password that is read from a file.
const MAX_PASSWORD_BYTES: u64 = 1_024;
/// Rounds of PBKDF2 over the password. The library's 10,000 are too few for one that people choose;
/// these take a tenth of a second.
const PASSWORD_ROUNDS: u32 = 600_000;

/// Pack a certificate, its key and the CA into a PKCS#12 file, for tools that want one
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate certs export operator --out operator.p12
  tidegate certs export operator --out operator.p12 --password-file password.txt
  openssl pkcs12 -in operator.p12 -info -noout

The password is asked for, or is the first line of a file that only you can read. It is never
taken from the command line, where other users of the machine could see it.")]
pub(super) struct Export {
    /// Whose: the name of its file in certs/
    name: String,
    /// The file to write
    #[arg(long, value_name = "FILE.p12")]
    out: PathBuf,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

impl Export {
    pub(super) fn run(self, config: &Config) -> Result<()> {
        let path = certificate_file(config, &self.name)?;
        if self.out.exists() && !self.force {
            bail!("{} exists already; --force replaces it", self.out.display());
        }
        let info = inspect::certificate(&path)?;
        let key = files::read_key(&config.files.certs.join(format!("{}-key.pem", self.name)))?;
        let bundle = inspect::bundle(&CaPaths::of(config).bundle)?;
        let signer = inspect::issuer_of(&info.der, &bundle)
            .with_context(|| format!("no CA of ours signed {}", path.display()))?;
        let password = self.password()?;

        let read = |der: &[u8]| Certificate::from_der(der).context("a certificate cannot be packed");
        let chain = [read(&info.der)?, read(&signer.der)?];
        let private = PrivateKey::from_der(key.secret_der())
            .with_context(|| format!("the key of {} cannot be packed", self.name))?;
        let mut store = KeyStore::new();
        let chain = PrivateKeyChain::new(info.key_id.clone(), private, chain);
        store.add_entry(&self.name, KeyStoreEntry::PrivateKeyChain(chain));
        for other in bundle.iter().filter(|other| other.key_id != signer.key_id) {
            store.add_entry(&other.subject, KeyStoreEntry::Certificate(read(&other.der)?));
        }
        let packed = store
            .writer(&password)
            .encryption_iterations(PASSWORD_ROUNDS)
            .mac_iterations(PASSWORD_ROUNDS)
            .write()
            .context("cannot write PKCS#12")?;
        files::write(&self.out, &packed, PRIVATE_MODE, self.force)?;
        anstream::println!(
            "packed {}, its key and the CA into {}; it is good until {}",
            path.display(),
            self.out.display(),
            day(info.not_after)
        );
        Ok(())
    }

    fn password(&self) -> Result<Zeroizing<String>> {
        let password = match &self.password_file {
            Some(path) => {
                let file =
                    std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
                let mut line = Zeroizing::new(String::new());
                std::io::BufReader::new(file.take(MAX_PASSWORD_BYTES))
                    .read_line(&mut line)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned())
            }
            None if std::io::stdin().is_terminal() => {
                let first = Zeroizing::new(rpassword::prompt_password("Password for the file: ")?);
                let again = Zeroizing::new(rpassword::prompt_password("Once more: ")?);
                if first != again {
                    bail!("the two passwords differ");
                }
                first
            }
            None => bail!("there is no terminal to ask for the password; give --password-file FILE"),
        };
        if password.chars().count() < MIN_PASSWORD_CHARS {
            bail!("the password has fewer than {MIN_PASSWORD_CHARS} characters");
        }
        Ok(password)
    }
}
