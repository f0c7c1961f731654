//! Where readings come from: the database, the simulator, or recordings.

use super::recording::Recording;
use super::rows::Rows;
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::training;
use anyhow::{Context, Result, bail};
use compact_str::CompactString;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;
use tidegate_store::event::Outcome;
use tidegate_store::reader::{EventQuery, Order, Reader, ReadingQuery};

/// Readings of one device that are taken from the database at most: the newest.
const MOST_OF_A_DEVICE: u64 = 200_000;
/// Readings that are held at one time at most, about a gigabyte.
const MOST_READINGS: usize = 5_000_000;

/// Readings of a fleet.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Where from, in words.
    pub(crate) description: String,
    pub(crate) series: Vec<Series>,
}

/// The readings of one device, oldest first.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) device: DeviceId,
    pub(crate) readings: Vec<Reading>,
}

/// One reading and what is known about it.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) at: Timestamp,
    pub(crate) channels: Channels,
    /// The event that it is labelled with in a recording.
    pub(crate) event: Option<CompactString>,
    /// The alarm that it raised when it was accepted.
    pub(crate) alarm: Option<String>,
    /// Whether it is for training; `None` where nothing says so.
    pub(crate) training: Option<bool>,
}

impl Reading {
    /// A reading that nothing is known about.
    pub(crate) fn new(at: Timestamp, channels: Channels) -> Self {
        Self {
            at,
            channels,
            event: None,
            alarm: None,
            training: None,
        }
    }
}

/// Which source, as `--from` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The database of this installation.
    Store,
    /// The simulated building.
    Simulator,
    /// Recordings.
    Files(Vec<PathBuf>),
}

impl Source {
    /// What `--from` says: `store`, `simulator`, or files.
    pub(crate) fn parse(from: &[String]) -> Result<Self> {
        match from {
            [] => Ok(Self::Store),
            [one] if one == "store" => Ok(Self::Store),
            [one] if one == "simulator" => Ok(Self::Simulator),
            files if files.iter().any(|file| file == "store" || file == "simulator") => {
                bail!("--from takes `store`, `simulator`, or CSV files, not several of these")
            }
            files => Ok(Self::Files(files.iter().map(PathBuf::from).collect())),
        }
    }

    /// Reads everything. `columns` and `rows` choose among what recordings hold; `since` among what
    /// the database holds.
    pub(crate) fn gather(
        &self,
        config: &Config,
        columns: Option<&[String]>,
        since: Option<Timestamp>,
    ) -> Result<Gathered> {
        match self {
            Self::Store => from_store(config, since),
            Self::Simulator => training::from_simulator(config),
            Self::Files(files) => from_files(files, columns),
        }
    }
}

impl Gathered {
    /// Marks the readings that are for training: those at `rows` of each device, or else those
    /// that the recording marks so, or else all.
    pub(crate) fn mark_training(&mut self, rows: Option<&Rows>) -> Result<()> {
        for series in &mut self.series {
            let count = series.readings.len();
            if let Some(Rows(rows)) = rows.filter(|Rows(rows)| rows.end > count) {
                bail!(
                    "rows {}..{} are asked for, but {} has {count}",
                    rows.start,
                    rows.end,
                    series.device
                );
            }
            for (number, reading) in series.readings.iter_mut().enumerate() {
                reading.training = Some(match rows {
                    Some(Rows(rows)) => rows.contains(&number),
                    None => reading.training.unwrap_or(true),
                });
            }
        }
        Ok(())
    }

    /// How many readings there are in all.
    pub(crate) fn readings(&self) -> usize {
        self.series.iter().map(|series| series.readings.len()).sum()
    }
}

fn from_store(config: &Config, since: Option<Timestamp>) -> Result<Gathered> {
    let mut reader = open_store(config)?;
    let mut gathered = Gathered {
        description: "accepted readings of the database".into(),
        series: Vec::new(),
    };
    for device in DevicesFile::load(&config.files.registry)?.devices {
        let device = DeviceId::new(&device.id)?;
        let readings = of_device(&mut reader, &device, since)?;
        if !readings.is_empty() {
            gathered.series.push(Series { device, readings });
        }
        if gathered.readings() > MOST_READINGS {
            bail!("the database holds more than {MOST_READINGS} readings; choose some with --since");
        }
    }
    Ok(gathered)
}

/// The database of this installation.
pub(crate) fn open_store(config: &Config) -> Result<Reader> {
    let path = config.files.database();
    Reader::open(&path).with_context(|| {
        format!(
            "cannot read the database {}; `tidegate up` makes it",
            path.display()
        )
    })
}

/// The newest readings of one device, oldest first, with the alarms that they raised.
pub(crate) fn of_device(
    reader: &mut Reader,
    device: &DeviceId,
    since: Option<Timestamp>,
) -> Result<Vec<Reading>> {
    let mut alarms = HashMap::new();
    let flagged = EventQuery {
        outcome: Some(Outcome::Flagged),
        device: Some(device.clone()),
        from: since,
        ..EventQuery::default()
    };
    reader.events(&flagged, |event| {
        alarms.insert((event.boot, event.sequence, event.timestamp), event.detail);
        ControlFlow::Continue(())
    })?;
    let query = ReadingQuery {
        device: Some(device.clone()),
        from: since,
        limit: Some(MOST_OF_A_DEVICE),
        order: Order::NewestFirst,
        ..ReadingQuery::default()
    };
    let mut readings = Vec::new();
    reader.readings(&query, |row| {
        let stated = (row.boot, row.sequence, row.timestamp);
        readings.push(Reading {
            alarm: alarms.get(&stated).cloned(),
            ..Reading::new(row.timestamp.unwrap_or(row.received), row.channels)
        });
        ControlFlow::Continue(())
    })?;
    readings.reverse();
    Ok(readings)
}

fn from_files(files: &[PathBuf], columns: Option<&[String]>) -> Result<Gathered> {
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let names: Vec<String> = files.iter().map(|path| name(path)).collect();
    let mut gathered = Gathered {
        description: match &names[..] {
            [first, .., last] if names.len() > 3 => format!("{} files, {first} to {last}", names.len()),
            names => names.join(", "),
        },
        series: Vec::new(),
    };
    let mut total = 0;
    for path in files {
        let mut recording = Recording::open(path, columns).map_err(|error| {
            if path.exists() {
                return error;
            }
            error.context("--from takes `store`, `simulator`, or CSV files")
        })?;
        // Where the devices of this file stand among all.
        let mut positions: Vec<usize> = Vec::new();
        while let Some(row) = recording.next()? {
            for device in &recording.devices()[positions.len()..] {
                let known = gathered.series.iter().position(|series| series.device == *device);
                positions.push(known.unwrap_or(gathered.series.len()));
                if known.is_none() {
                    gathered.series.push(Series {
                        device: device.clone(),
                        readings: Vec::new(),
                    });
                }
            }
            total += 1;
            if total > MOST_READINGS {
                bail!("the files hold more than {MOST_READINGS} readings");
            }
            gathered.series[positions[row.device]].readings.push(Reading {
                event: row.event,
                training: row.training,
                ..Reading::new(row.at, row.channels)
            });
        }
    }
    Ok(gathered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart_and_not_mixed() {
        let parse = |from: &[&str]| Source::parse(&from.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(parse(&[]).unwrap(), Source::Store);
        assert_eq!(parse(&["simulator"]).unwrap(), Source::Simulator);
        assert_eq!(parse(&["a.csv"]).unwrap(), Source::Files(vec!["a.csv".into()]));
        assert!(parse(&["store", "a.csv"]).is_err());
    }

    #[test]
    fn files_of_one_device_are_appended_and_rows_are_chosen_per_device() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let first = write("1.csv", "device,flow\na,1\nb,2\na,3\n");
        let second = write("2.csv", "device,flow\nb,4\n");
        let mut gathered = from_files(&[first, second], None).unwrap();
        let lengths: Vec<_> = gathered
            .series
            .iter()
            .map(|series| series.readings.len())
            .collect();
        assert_eq!(
            (gathered.description.as_str(), lengths),
            ("1.csv, 2.csv", vec![2, 2])
        );
        gathered.mark_training(Some(&Rows(0..1))).unwrap();
        let trained = |index: usize| gathered.series[0].readings[index].training;
        assert_eq!((trained(0), trained(1)), (Some(true), Some(false)));
        let error = gathered.mark_training(Some(&Rows(0..3))).unwrap_err().to_string();
        assert!(error.contains("a has 2"), "{error}");
    }
}
