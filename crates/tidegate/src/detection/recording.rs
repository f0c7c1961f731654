//! Readings from a CSV file, plain or gzipped, row after row.
//!
//! Time is the column `timestamp` (RFC 3339) or `t` (seconds); without one, a reading comes every
//! five seconds. A column of numbers is a channel, one of text is not. Labels, where there are
//! any: `event` (its type, or empty), `anomaly` (0 or 1), and `split` (`train` or another word).

use anyhow::{Context, Result, bail};
use compact_str::CompactString;
use flate2::read::MultiGzDecoder;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reading::{Channels, MAX_CHANNEL_BYTES, MAX_CHANNELS};
use tidegate_envelope::time::Timestamp;

/// Time between two readings of a file that states none.
pub(crate) const ASSUMED_INTERVAL: Duration = Duration::from_secs(5);
/// Most devices of one file.
const MAX_DEVICES: usize = 10_000;
/// Columns that are never channels.
pub(super) const RESERVED: [&str; 15] = [
    "anomaly",
    "boot",
    "device",
    "device_id",
    "epoch",
    "event",
    "label",
    "protected",
    "received",
    "sequence",
    "split",
    "status",
    "t",
    "timestamp",
    "y",
];

/// A file that is being read.
pub(crate) struct Recording {
    path: PathBuf,
    rows: csv::Reader<Box<dyn Read>>,
    layout: Layout,
    record: csv::StringRecord,
    /// The first row, which [`Recording::open`] has looked at already.
    waiting: bool,
    next_row: usize,
    devices: Vec<DeviceId>,
    by_name: HashMap<String, usize>,
}

/// Which column is what.
#[derive(Debug)]
struct Layout {
    names: csv::StringRecord,
    timestamp: Option<usize>,
    received: Option<usize>,
    seconds: Option<usize>,
    device: Option<usize>,
    event: Option<usize>,
    anomaly: Option<usize>,
    split: Option<usize>,
    channels: Vec<(usize, CompactString)>,
}

/// One reading of a recording.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// From 0, the header not counted.
    pub(crate) number: usize,
    /// Position in [`Recording::devices`].
    pub(crate) device: usize,
    pub(crate) at: Timestamp,
    /// Empty cells are left out.
    pub(crate) channels: Channels,
    /// The type of the event that the reading is labelled with.
    pub(crate) event: Option<CompactString>,
    /// Whether the file marks it for training; `None` where it marks nothing.
    pub(crate) training: Option<bool>,
}

/// Opens a file; gzipped when its name ends in `.gz`.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(if path.extension().is_some_and(|extension| extension == "gz") {
        Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file))))
    } else {
        Box::new(BufReader::new(file))
    })
}

impl Recording {
    /// Opens `path`. `columns` names the channels; without it, every column of numbers is one but
    /// those with a meaning of their own, such as `timestamp`, `sequence` or `anomaly`.
    pub(crate) fn open(path: &Path, columns: Option<&[String]>) -> Result<Self> {
        let mut rows = csv::Reader::from_reader(open(path)?);
        let shown = path.display();
        let names = rows
            .headers()
            .with_context(|| format!("{shown} has no header"))?
            .clone();
        let mut record = csv::StringRecord::new();
        let waiting = rows
            .read_record(&mut record)
            .with_context(|| format!("cannot read {shown}"))?;
        if !waiting {
            bail!("{shown} has no rows");
        }
        let layout = Layout::new(names, &record, columns).with_context(|| shown.to_string())?;
        let mut recording = Self {
            path: path.to_owned(),
            rows,
            layout,
            record,
            waiting,
            next_row: 0,
            devices: Vec::new(),
            by_name: HashMap::new(),
        };
        if recording.layout.device.is_none() {
            recording.devices.push(named_after(path)?);
        }
        Ok(recording)
    }

    /// The devices heard so far, in the order in which they first came.
    pub(crate) fn devices(&self) -> &[DeviceId] {
        &self.devices
    }

    /// The next row, `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Row>> {
        if !std::mem::take(&mut self.waiting) {
            let more = self.rows.read_record(&mut self.record);
            if !more.with_context(|| format!("cannot read {}", self.path.display()))? {
                return Ok(None);
            }
        }
        let number = self.next_row;
        self.next_row += 1;
        self.row(number)
            .map(Some)
            .with_context(|| format!("{}, row {number}", self.path.display()))
    }

    fn row(&mut self, number: usize) -> Result<Row> {
        let layout = &self.layout;
        let cell = |column: usize| self.record.get(column).unwrap_or_default();
        let mut values = Vec::with_capacity(layout.channels.len());
        for (column, name) in &layout.channels {
            if let Some(value) = number_in(cell(*column), name)? {
                values.push((name.clone(), value));
            }
        }
        let channels = Channels::new(values).context("the values of a row must be finite numbers")?;
        let event = layout
            .event
            .map(cell)
            .filter(|event| !event.is_empty())
            .map(CompactString::from);
        let anomaly = layout.anomaly.map(cell).is_some_and(is_one);
        let at = layout.time(&self.record, number)?;
        let training = layout.split.map(|column| cell(column) == "train");
        let device = match layout.device {
            None => 0,
            Some(column) => {
                let name = self.record.get(column).unwrap_or_default();
                match self.by_name.get(name) {
                    Some(device) => *device,
                    None => {
                        let id = DeviceId::new(name).context("column device")?;
                        if self.devices.len() == MAX_DEVICES {
                            bail!("more than {MAX_DEVICES} devices are in one file");
                        }
                        self.devices.push(id);
                        self.by_name.insert(name.to_owned(), self.devices.len() - 1);
                        self.devices.len() - 1
                    }
                }
            }
        };
        Ok(Row {
            number,
            device,
            at,
            channels,
            event: event.or_else(|| anomaly.then(|| "anomaly".into())),
            training,
        })
    }
}

impl Layout {
    fn new(names: csv::StringRecord, first: &csv::StringRecord, columns: Option<&[String]>) -> Result<Self> {
        let find = |wanted: &str| names.iter().position(|name| name == wanted);
        let numeric = |column: usize| {
            let cell = first.get(column).unwrap_or_default().trim();
            cell.is_empty() || cell.parse::<f64>().is_ok()
        };
        let positions: Vec<usize> = match columns {
            Some(columns) => columns
                .iter()
                .map(|name| {
                    find(name).with_context(|| {
                        let known: Vec<_> = names.iter().collect();
                        format!("there is no column `{name}`, only {}", known.join(", "))
                    })
                })
                .collect::<Result<_>>()?,
            None => (0..names.len())
                .filter(|&column| !RESERVED.contains(&&names[column]) && numeric(column))
                .collect(),
        };
        if positions.is_empty() {
            bail!("there is no column of numbers that could be a channel");
        }
        if positions.len() > MAX_CHANNELS {
            bail!(
                "there are {} columns of numbers, at most {MAX_CHANNELS} can be channels; pick some with --columns",
                positions.len()
            );
        }
        let mut channels: Vec<(usize, CompactString)> = positions
            .into_iter()
            .map(|column| (column, names[column].into()))
            .collect();
        // Messages have their channels sorted, and so need no sorting row by row.
        channels.sort_by(|a, b| a.1.cmp(&b.1));
        if let Some(twice) = channels.windows(2).find(|pair| pair[0].1 == pair[1].1) {
            bail!("column `{}` is there twice", twice[0].1);
        }
        if let Some((_, name)) = channels
            .iter()
            .find(|(_, name)| name.is_empty() || name.len() > MAX_CHANNEL_BYTES)
        {
            bail!("column `{name}` must have a name of 1 to {MAX_CHANNEL_BYTES} bytes to be a channel");
        }
        Ok(Self {
            timestamp: find("timestamp"),
            received: find("received"),
            seconds: find("t"),
            device: find("device"),
            event: find("event"),
            anomaly: find("anomaly"),
            split: find("split"),
            channels,
            names,
        })
    }

    fn time(&self, record: &csv::StringRecord, number: usize) -> Result<Timestamp> {
        // A device without a clock states no time; its readings have the time of their arrival.
        let stated = [self.timestamp, self.received].into_iter().flatten();
        let stated = stated
            .filter_map(|column| Some((column, record.get(column)?)))
            .find(|(_, cell)| !cell.is_empty());
        if let Some((column, cell)) = stated {
            return Timestamp::parse_rfc3339(cell).with_context(|| {
                format!("column {}: `{cell}` is not an RFC 3339 time", &self.names[column])
            });
        }
        if self.timestamp.is_some() {
            bail!("column timestamp is empty");
        }
        let Some(column) = self.seconds else {
            let elapsed = ASSUMED_INTERVAL.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
            return Ok(Timestamp::from_micros(0).plus(elapsed));
        };
        let cell = record.get(column).unwrap_or_default();
        let seconds = number_in(cell, "t")?.context("column t is empty")?;
        Ok(Timestamp::from_micros((seconds * 1e6).round() as i64))
    }
}

/// The number in a cell, `None` of an empty one.
pub(super) fn number_in(cell: &str, column: &str) -> Result<Option<f64>> {
    let cell = cell.trim();
    if cell.is_empty() {
        return Ok(None);
    }
    let value = cell.parse::<f64>().ok().filter(|value| value.is_finite());
    match value {
        Some(value) => Ok(Some(value)),
        None => bail!("column {column}: `{cell}` is not a finite number"),
    }
}

/// Whether a label says anomaly.
pub(super) fn is_one(cell: &str) -> bool {
    cell.trim().parse::<f64>().is_ok_and(|value| value != 0.0)
}

/// A device named after its file: `hotel_101` for `data/hotel_101.csv.gz`.
fn named_after(path: &Path) -> Result<DeviceId> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let name = name.strip_suffix(".csv").unwrap_or(name);
    let allowed = |character: char| {
        if character.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&character) {
            character
        } else {
            '-'
        }
    };
    let name: String = name.chars().take(64).map(allowed).collect();
    DeviceId::new(&name).with_context(|| format!("{} gives no device name", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(text: &str, columns: Option<&[String]>) -> Result<(Vec<Row>, Vec<String>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plant 7.csv.gz");
        let mut file =
            flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        file.write_all(text.as_bytes()).unwrap();
        file.finish().unwrap();
        let mut recording = Recording::open(&path, columns)?;
        let mut rows = Vec::new();
        while let Some(row) = recording.next()? {
            rows.push(row);
        }
        let devices = recording.devices().iter().map(ToString::to_string);
        Ok((rows, devices.collect()))
    }

    fn refused(text: &str, columns: Option<&[String]>) -> String {
        format!("{:#}", read(text, columns).unwrap_err())
    }

    #[test]
    fn gzipped_rows_with_seconds_and_labels_are_read() {
        let text = "t,flow,gate,event,anomaly,split\n0,1.5,40,,0,train\n5,1.6,,leak,1,test\n";
        let (rows, devices) = read(text, None).unwrap();
        assert_eq!(devices, ["plant-7"]);
        assert_eq!(rows[0].channels.get("gate"), Some(40.0));
        assert_eq!((rows[0].event.clone(), rows[0].training), (None, Some(true)));
        assert_eq!(rows[1].at, Timestamp::from_micros(5_000_000));
        assert_eq!(rows[1].channels.len(), 1);
        assert_eq!(rows[1].event.as_deref(), Some("leak"));
        assert_eq!(rows[1].training, Some(false));
    }

    #[test]
    fn readings_as_exported_are_read_by_device_and_arrival_stands_in_for_a_clock() {
        let text = "received,device,timestamp,sequence,status,protected,flow_rate\n\
                    2026-01-01T00:00:01Z,b,2026-01-01T00:00:00Z,1,ok,true,50\n\
                    2026-01-01T00:00:02Z,a,,2,ok,true,51\n";
        let (rows, devices) = read(text, None).unwrap();
        assert_eq!(devices, ["b", "a"]);
        assert_eq!(
            rows[1].at,
            Timestamp::parse_rfc3339("2026-01-01T00:00:02Z").unwrap()
        );
        assert_eq!((rows[1].device, rows[1].channels.len()), (1, 1));
    }

    #[test]
    fn anomaly_without_a_type_is_an_event_and_columns_can_be_picked() {
        let picked = ["b".to_owned()];
        let (rows, _) = read("a,b,anomaly\n1,2,0\n1,3,1\n", Some(&picked)).unwrap();
        assert_eq!(rows[1].event.as_deref(), Some("anomaly"));
        assert_eq!(
            (rows[1].channels.get("a"), rows[1].channels.get("b")),
            (None, Some(3.0))
        );
    }

    #[test]
    fn bad_cells_are_refused_by_row_and_column() {
        let error = refused("a,b\n1,2\n1,x\n", None);
        assert!(
            error.contains("row 1") && error.contains("column b: `x`"),
            "{error}"
        );
        let error = refused("a,b\n1,2\n1,inf\n", None);
        assert!(error.contains("column b: `inf`"), "{error}");
        let error = refused("timestamp,b\nyesterday,2\n", None);
        assert!(
            error.contains("row 0") && error.contains("`yesterday`"),
            "{error}"
        );
        let error = refused("a,b\n1,2\n1\n", None);
        assert!(error.contains("cannot read"), "{error}");
        let error = refused("a,b\n1,2\n", Some(&["c".to_owned()]));
        assert!(error.contains("no column `c`, only a, b"), "{error}");
        assert!(refused("a,a\n1,2\n", None).contains("`a` is there twice"));
        assert!(refused("a,b\n", None).contains("has no rows"));
        assert!(refused("event,split\nx,y\n", None).contains("no column of numbers"));
    }
}
