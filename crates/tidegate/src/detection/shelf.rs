//! The folder of models: one file per model that was trained, one of them in use.
//!
//! `data/model.tgm` is what a gateway loads; a model in use is a copy of its file in
//! `data/models/`, so a file there is never changed by being used. `data/models/record.json` says
//! which models were in use before, for the way back, and what evaluations have found.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tidegate_detect::model::Model;
use tidegate_envelope::time::Timestamp;

use crate::config::Files;

/// How a model's file name ends.
const EXTENSION: &str = "model";
/// Longest name of a model.
const MAX_NAME_BYTES: usize = 64;
/// Most models that are kept.
pub(crate) const MAX_MODELS: usize = 200;
/// How many models that were in use before are remembered.
const MAX_PREVIOUS: usize = 16;

/// The models of one installation.
pub(crate) struct Shelf {
    folder: PathBuf,
    in_use: PathBuf,
}

/// A model by its name.
pub(crate) struct Kept {
    pub(crate) name: String,
    /// Why it cannot be read, where it cannot.
    pub(crate) model: Result<Model>,
    /// Whether gateways load it at their next start.
    pub(crate) active: bool,
    /// Whether `activate --previous` would bring it back.
    pub(crate) previous: bool,
    /// What the last evaluation of it found.
    pub(crate) evaluated: Option<Evaluated>,
}

/// What an evaluation on readings outside training found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Evaluated {
    /// Share of ordinary readings that were over the threshold.
    pub(crate) false_alarm_rate: f64,
    /// How many ordinary readings that rests on.
    pub(crate) readings: u64,
    /// When, as RFC 3339.
    pub(crate) at: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Record {
    /// Names of models that were in use, the latest last.
    previous: Vec<String>,
    evaluated: BTreeMap<String, Evaluated>,
}

impl Shelf {
    /// The models of an installation; nothing is read or made yet.
    pub(crate) fn new(files: &Files) -> Self {
        Self {
            folder: files.data.join("models"),
            in_use: files.model(),
        }
    }

    /// Whether any model is in use.
    pub(crate) fn has_active(&self) -> bool {
        self.in_use.exists()
    }

    /// The file that gateways load.
    pub(crate) fn active_path(&self) -> &Path {
        &self.in_use
    }

    /// Where the model of this name lies.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.{EXTENSION}"))
    }

    /// A name that is free: the date and time of training.
    pub(crate) fn name_of(&self, at: Timestamp) -> String {
        let second = at.to_string();
        let digits: String = second
            .chars()
            .filter(|&c| c.is_ascii_digit() || c == 'T')
            .collect();
        let name: String = digits.replace('T', "-").chars().take(15).collect();
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        std::iter::once(name.clone())
            .chain(numbered)
            .find(|name| !self.path(name).exists())
            .unwrap_or(name)
    }

    /// Keeps a new model under `name`, which must be free.
    pub(crate) fn keep(&self, name: &str, model: &Model) -> Result<PathBuf> {
        let _lock = self.lock()?;
        check_name(name)?;
        let path = self.path(name);
        if path.exists() {
            bail!("there is a model {name} already; choose another --name");
        }
        if self.names()?.len() >= MAX_MODELS {
            bail!(
                "{} holds {MAX_MODELS} models already; delete some that are not in use",
                self.folder.display()
            );
        }
        model.save(&path)?;
        Ok(path)
    }

    /// The model of this name, or the one in use.
    pub(crate) fn load(&self, name: Option<&str>) -> Result<Model> {
        match name {
            None => Model::load(&self.in_use).with_context(|| {
                format!(
                    "cannot load {}; `tidegate detect train` makes a model, `tidegate detect activate NAME` uses one",
                    self.in_use.display()
                )
            }),
            Some(name) => {
                check_name(name)?;
                let known = || self.names().unwrap_or_default().join(", ");
                if !self.path(name).exists() {
                    bail!("there is no model {name}; there are: {}", known());
                }
                Model::load(&self.path(name)).with_context(|| format!("cannot load the model {name}"))
            }
        }
    }

    /// The name of the model in use; `None` when it is not one that is kept.
    pub(crate) fn active(&self) -> Option<String> {
        let active = fs::read(&self.in_use).ok()?;
        let same = |name: &String| fs::read(self.path(name)).is_ok_and(|bytes| bytes == active);
        self.names().ok()?.into_iter().find(same)
    }

    /// All models, sorted by name.
    pub(crate) fn list(&self) -> Result<Vec<Kept>> {
        let active = self.active();
        let mut record = self.record()?;
        let previous = way_back(&record, active.as_deref()).map(ToOwned::to_owned);
        let kept = |name: String| Kept {
            model: self.load(Some(&name)),
            active: active.as_ref() == Some(&name),
            previous: previous.as_ref() == Some(&name),
            evaluated: record.evaluated.remove(&name),
            name,
        };
        Ok(self.names()?.into_iter().map(kept).collect())
    }

    /// Puts the model of this name in use. It is read first, so a damaged one changes nothing.
    pub(crate) fn activate(&self, name: &str) -> Result<Model> {
        let _lock = self.lock()?;
        self.switch(name)
    }

    /// Puts the model in use that was before; answers its name.
    pub(crate) fn roll_back(&self) -> Result<String> {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        let active = self.active();
        let Some(name) = way_back(&record, active.as_deref()).map(ToOwned::to_owned) else {
            bail!("no other model was in use before");
        };
        self.load(Some(&name))?.save(&self.in_use)?;
        while record.previous.pop().is_some_and(|dropped| dropped != name) {}
        self.write(&record)?;
        Ok(name)
    }

    /// Notes what an evaluation of a model has found.
    pub(crate) fn note(&self, name: &str, evaluated: Evaluated) -> Result<()> {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        record.evaluated.insert(name.to_owned(), evaluated);
        let names = self.names()?;
        record.evaluated.retain(|name, _| names.contains(name));
        self.write(&record)
    }

    fn switch(&self, name: &str) -> Result<Model> {
        let model = self.load(Some(name))?;
        let active = match self.active() {
            Some(active) => Some(active),
            None => self.rescue()?,
        };
        // The way back is written before the step: a crash between them leaves one that leads here.
        if let Some(active) = active.filter(|active| active != name) {
            let mut record = self.record()?;
            record.previous.push(active);
            let excess = record.previous.len().saturating_sub(MAX_PREVIOUS);
            record.previous.drain(..excess);
            self.write(&record)?;
        }
        model.save(&self.in_use)?;
        Ok(model)
    }

    /// Keeps a model that is in use but has no file of its own, from before there was this folder.
    fn rescue(&self) -> Result<Option<String>> {
        let Ok(model) = Model::load(&self.in_use) else {
            return Ok(None);
        };
        let name = self.name_of(model.about().trained_at());
        model.save(&self.path(&name))?;
        Ok(Some(name))
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.folder.display()));
            }
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            if path.extension().is_some_and(|extension| extension == EXTENSION) && check_name(&name).is_ok() {
                names.push(name.into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn record_path(&self) -> PathBuf {
        self.folder.join("record.json")
    }

    fn record(&self) -> Result<Record> {
        let path = self.record_path();
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn write(&self, record: &Record) -> Result<()> {
        let partial = self.folder.join("record.json.partial");
        let write = || {
            fs::write(&partial, serde_json::to_vec_pretty(record)?)?;
            File::open(&partial)?.sync_all()?;
            anyhow::Ok(fs::rename(&partial, self.record_path())?)
        };
        write().with_context(|| format!("cannot write {}", self.record_path().display()))
    }

    /// Keeps other processes from changing the folder, until it is dropped.
    fn lock(&self) -> Result<File> {
        let path = self.folder.join("lock");
        let lock = || {
            fs::create_dir_all(&self.folder)?;
            let file = File::create(&path)?;
            file.lock()?;
            Ok::<_, std::io::Error>(file)
        };
        lock().with_context(|| format!("cannot lock {}", path.display()))
    }
}

/// The latest model that was in use before, other than the one in use now.
fn way_back<'r>(record: &'r Record, active: Option<&str>) -> Option<&'r str> {
    let before = record.previous.iter().rev().map(String::as_str);
    before.into_iter().find(|name| Some(*name) != active)
}

fn check_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with('.') || !name.bytes().all(allowed) {
        bail!(
            "`{name}` is not a model's name: 1 to {MAX_NAME_BYTES} characters of A-Z a-z 0-9 . _ -, not . first"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_detect::train::{TrainOptions, TrainingData, fit};
    use tidegate_envelope::id::DeviceId;
    use tidegate_envelope::reading::Channels;

    fn model(seed: u64) -> Model {
        let readings = (0..1_000_i64).map(|second| {
            let value = (second * 37 % 101) as f64;
            let channels = Channels::new(vec![("flow_rate".into(), value)]).unwrap();
            (Timestamp::from_micros(second * 1_000_000), channels)
        });
        let mut data = TrainingData::new("a test");
        data.add(DeviceId::new("device-001").unwrap(), readings.collect());
        let options = TrainOptions {
            trees: 2,
            ..TrainOptions::new(seed, Timestamp::from_micros(0))
        };
        fit(&data, &options, &mut |_| ()).unwrap()
    }

    fn shelf() -> (tempfile::TempDir, Shelf) {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf {
            folder: folder.path().join("models"),
            in_use: folder.path().join("model.tgm"),
        };
        (folder, shelf)
    }

    #[test]
    fn a_model_is_activated_and_the_one_before_comes_back() {
        let (_folder, shelf) = shelf();
        for (name, seed) in [("one", 1), ("two", 2), ("three", 3)] {
            shelf.keep(name, &model(seed)).unwrap();
            shelf.activate(name).unwrap();
        }
        assert_eq!(shelf.active().as_deref(), Some("three"));
        assert_eq!(shelf.roll_back().unwrap(), "two");
        assert_eq!(Model::load(&shelf.in_use).unwrap(), model(2));
        assert_eq!(shelf.roll_back().unwrap(), "one");
        assert!(shelf.roll_back().is_err());
        assert_eq!(shelf.active().as_deref(), Some("one"));
    }

    #[test]
    fn a_damaged_model_is_not_put_in_use() {
        let (_folder, shelf) = shelf();
        shelf.keep("good", &model(1)).unwrap();
        shelf.activate("good").unwrap();
        let path = shelf.keep("bad", &model(2)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(format!("{:#}", shelf.activate("bad").unwrap_err()).contains("damaged"));
        assert_eq!(shelf.active().as_deref(), Some("good"));
        let listed = shelf.list().unwrap();
        assert!(listed[0].model.is_err() && listed[1].active);
    }

    #[test]
    fn a_model_from_before_there_was_a_folder_is_kept_for_the_way_back() {
        let (_folder, shelf) = shelf();
        model(1).save(&shelf.in_use).unwrap();
        assert_eq!(shelf.active(), None);
        shelf.keep("new", &model(2)).unwrap();
        shelf.activate("new").unwrap();
        assert_eq!(shelf.roll_back().unwrap(), "19700101-000000");
        assert_eq!(Model::load(&shelf.in_use).unwrap(), model(1));
    }

    #[test]
    fn names_are_unique_and_stay_in_the_folder() {
        let (_folder, shelf) = shelf();
        shelf.keep("one", &model(1)).unwrap();
        assert!(shelf.keep("one", &model(2)).is_err());
        for name in ["", "../x", ".x", "a/b", "ä"] {
            assert!(shelf.keep(name, &model(1)).is_err(), "{name}");
            assert!(shelf.activate(name).is_err(), "{name}");
        }
        assert!(format!("{:#}", shelf.activate("two").unwrap_err()).contains("there are: one"));
    }
}
