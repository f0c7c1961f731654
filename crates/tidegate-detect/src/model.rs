//! The model file: versioned, checksummed, numbers only, and refused when anything is not known.
//!
//! ```text
//! offset  bytes
//! 0       8      "tidegate"
//! 8       4      version, u32 little endian: 2
//! 12      4      h, length of the header, u32 little endian
//! 16      h      header: JSON, see About, Calibration and Profile
//! 16+h    …      forest, see forest::Trees
//! last    32     SHA-256 of everything before it
//! ```
//!
//! The checksum finds damage. It is no signature: whoever can write the file can make a model.

use crate::calibrate::Calibration;
use crate::features::profile::Profile;
use crate::features::{COUNT, Feature};
use crate::forest::{Forest, Kind};
use crate::train::FeatureSet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;

/// The version that this build writes and reads.
pub const VERSION: u32 = 2;
/// Larger files are refused unread: 10,000 devices and 1,000 trees stay below.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

const MAGIC: &[u8; 8] = b"tidegate";
const PREFIX_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 32;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The training data, as whoever trained described them.
    pub data: String,
    /// When it was trained, as microseconds since 1970.
    pub trained_at_us: i64,
    /// The seed that, with the same data and build, gives the same model.
    pub seed: u64,
    /// How many readings the forest was grown from.
    pub training_readings: u64,
    /// How the forest splits.
    pub forest: Kind,
    /// How many trees there are.
    pub trees: u64,
    /// How many rows each tree was grown on at most.
    pub subsample: u64,
    /// What the forest is shown of a reading.
    pub feature_set: FeatureSet,
    /// The features, in order; none where it is shown raw values.
    pub features: Vec<Feature>,
}

impl About {
    /// When it was trained.
    #[must_use]
    pub fn trained_at(&self) -> Timestamp {
        Timestamp::from_micros(self.trained_at_us)
    }
}

/// What a detector needs to judge readings: made by [`train`](crate::train::train), then frozen.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    about: About,
    calibration: Calibration,
    /// Sorted by device name.
    profiles: Vec<Profile>,
    /// For devices that were not in training; where all of training had the same channels.
    fleet: Option<Fleet>,
    forest: Forest,
    /// The file's checksum.
    checksum: [u8; CHECKSUM_BYTES],
}

/// What devices that were not in training are judged by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// What is ordinary for all trained devices together.
    pub profile: Profile,
    /// The threshold for them: from trained devices as a profile of others scores them, where there
    /// are two or more, and else the model's own.
    pub calibration: Calibration,
}

/// Where a device's profile stands in a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProfilePosition {
    /// Its own.
    Own(usize),
    /// The fleet's.
    Fleet,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    about: About,
    calibration: Calibration,
    profiles: Vec<Profile>,
    fleet: Option<Fleet>,
}

/// Why a model could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The disk said no.
    #[error("model file {} cannot be used", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Larger than any model of ours.
    #[error("model file is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// Not one of our files; a Python pickle (`.joblib`) never is.
    #[error("this is not a tidegate model file")]
    NotAModel,
    /// Written by another version of this program.
    #[error("model version {found} is not known, only {VERSION}: train it again")]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// Changed since it was written.
    #[error("model file is damaged: its checksum does not match")]
    Checksum,
    /// Made with other features than this program computes.
    #[error("model was made with other features than this program computes: train it again")]
    Features,
    /// The checksum holds but the content cannot be: it was not written by this program.
    #[error("model file is not well formed: {0}")]
    Malformed(String),
}

impl Model {
    pub(crate) fn new(
        about: About,
        calibration: Calibration,
        mut profiles: Vec<Profile>,
        fleet: Option<Fleet>,
        forest: Forest,
    ) -> Self {
        profiles.sort_by(|a, b| a.device.cmp(&b.device));
        let mut model = Self {
            about,
            calibration,
            profiles,
            fleet,
            forest,
            checksum: [0; CHECKSUM_BYTES],
        };
        model.checksum = Sha256::digest(model.content()).into();
        model
    }

    /// The checksum of its file in hex: two models with the same one are the same.
    #[must_use]
    pub fn checksum(&self) -> String {
        self.checksum.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first bytes of the checksum, by which a device's memory knows its model again.
    pub(crate) fn mark(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.checksum;
        [a, b, c, d, e, f, g, h]
    }

    /// Where it comes from.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Its threshold.
    #[must_use]
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The forest.
    #[must_use]
    pub fn forest(&self) -> &Forest {
        &self.forest
    }

    /// What is ordinary for each trained device, sorted by name.
    #[must_use]
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// What devices that were not in training are judged by; where all of training had the same
    /// channels.
    #[must_use]
    pub fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    /// What is ordinary for `device`: its own profile, or else that of the fleet, which is less
    /// sharp. `None` when there is neither.
    #[must_use]
    pub fn profile(&self, device: &DeviceId) -> Option<&Profile> {
        Some(self.profile_at(self.profile_position(device)?))
    }

    pub(crate) fn profile_position(&self, device: &DeviceId) -> Option<ProfilePosition> {
        let own = self
            .profiles
            .binary_search_by(|profile| profile.device.as_str().cmp(device.as_str()));
        let fleet = self.fleet.as_ref().map(|_| ProfilePosition::Fleet);
        own.ok().map(ProfilePosition::Own).or(fleet)
    }

    pub(crate) fn profile_at(&self, position: ProfilePosition) -> &Profile {
        match position {
            ProfilePosition::Own(index) => &self.profiles[index],
            ProfilePosition::Fleet => &self.strangers().profile,
        }
    }

    pub(crate) fn calibration_at(&self, position: ProfilePosition) -> &Calibration {
        match position {
            ProfilePosition::Own(_) => &self.calibration,
            ProfilePosition::Fleet => &self.strangers().calibration,
        }
    }

    fn strangers(&self) -> &Fleet {
        self.fleet.as_ref().expect("positions come from this model")
    }

    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.content();
        bytes.extend_from_slice(&self.checksum);
        bytes
    }

    /// The file's bytes before the checksum.
    fn content(&self) -> Vec<u8> {
        let header = Header {
            about: self.about.clone(),
            calibration: self.calibration,
            profiles: self.profiles.clone(),
            fleet: self.fleet.clone(),
        };
        let header = serde_json::to_vec(&header).expect("text keys and finite numbers are JSON");
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + header.len() + CHECKSUM_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header);
        self.forest.write(&mut bytes);
        bytes
    }

    /// The model in `bytes`; refused unless every byte is understood.
    ///
    /// # Errors
    ///
    /// See [`ModelError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        if !bytes.starts_with(MAGIC) || bytes.len() < PREFIX_BYTES + CHECKSUM_BYTES {
            return Err(ModelError::NotAModel);
        }
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        // Before the checksum: another version may have another one.
        if number(8) != VERSION {
            return Err(ModelError::Version { found: number(8) });
        }
        let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if Sha256::digest(content)[..] != *checksum {
            return Err(ModelError::Checksum);
        }
        let malformed = |what: &str| ModelError::Malformed(what.to_owned());
        let (header, forest) = content[PREFIX_BYTES..]
            .split_at_checked(number(12) as usize)
            .ok_or_else(|| malformed("the header is longer than the file"))?;
        let header: Header =
            serde_json::from_slice(header).map_err(|error| ModelError::Malformed(error.to_string()))?;
        let width = match header.about.feature_set {
            FeatureSet::Stream if header.about.features == Feature::ALL => COUNT,
            FeatureSet::Raw if header.about.features.is_empty() => raw_width(&header.profiles)
                .ok_or_else(|| malformed("raw values of devices that differ in their channels"))?,
            _ => return Err(ModelError::Features),
        };
        let forest = Forest::read(header.about.forest, forest, width).ok_or_else(|| malformed("forest"))?;
        let fleet = header.fleet.as_ref().map(|fleet| &fleet.profile);
        let unique = header.profiles.is_sorted_by(|a, b| a.device < b.device);
        if !unique || !header.profiles.iter().chain(fleet).all(Profile::is_sound) {
            return Err(malformed("profiles"));
        }
        let fleet = header.fleet.as_ref().map(|fleet| &fleet.calibration);
        if !header.calibration.is_sound() || !fleet.is_none_or(Calibration::is_sound) {
            return Err(malformed("calibration"));
        }
        Ok(Self::new(
            header.about,
            header.calibration,
            header.profiles,
            header.fleet,
            forest,
        ))
    }

    /// Writes the file at `path`: all of it or, after an error or a power cut, what was there before.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let write = || {
            let mut file = File::create(&partial)?;
            file.write_all(&self.to_bytes())?;
            file.sync_all()?;
            fs::rename(&partial, path)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|source| ModelError::Io {
            path: path.to_owned(),
            source,
        })
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// See [`ModelError`].
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|source| ModelError::Io {
                path: path.to_owned(),
                source,
            })?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(ModelError::TooLarge);
        }
        Self::from_bytes(&bytes)
    }
}

/// How many channels every profile has, the same ones.
fn raw_width(profiles: &[Profile]) -> Option<usize> {
    let names = |profile: &Profile| -> Vec<String> {
        profile
            .channels
            .iter()
            .map(|channel| channel.name.clone())
            .collect()
    };
    let first = names(profiles.first()?);
    profiles
        .iter()
        .all(|profile| names(profile) == first)
        .then_some(first.len())
}
