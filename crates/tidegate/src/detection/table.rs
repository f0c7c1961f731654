//! Tables without time: NumPy's `.npz` with `X` and perhaps `y`, or a CSV file of numbers.

use super::recording::{self, RESERVED, is_one, number_in};
use anyhow::{Context, Result, bail};
use npyz::{NpyFile, Order};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use zip::ZipArchive;

/// Most values of a table: half a gigabyte as f64.
const MAX_VALUES: usize = 1 << 26;
/// Longest header of an array. NumPy writes about a hundred bytes.
const MAX_HEADER_BYTES: usize = 1_024;
/// Columns of a CSV file that hold labels.
const LABELS: [&str; 3] = ["y", "label", "anomaly"];

/// Rows of numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    /// Row after row.
    pub(crate) values: Vec<f64>,
    /// How many a row has.
    pub(crate) columns: usize,
    /// Whether each row is an anomaly, where the file says so.
    pub(crate) labels: Option<Vec<bool>>,
}

impl Matrix {
    /// Reads `path`; `columns` names those to use, by their numbers from 0 where they have no names.
    pub(crate) fn read(path: &Path, columns: Option<&[String]>) -> Result<Self> {
        let shown = path.display().to_string();
        let read = if path.extension().is_some_and(|extension| extension == "npz") {
            npz(path, columns)
        } else {
            csv(path, columns)
        };
        read.with_context(|| shown)
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.columns
    }
}

fn npz(path: &Path, columns: Option<&[String]>) -> Result<Matrix> {
    let mut archive = ZipArchive::new(File::open(path)?).context("this is not an .npz archive")?;
    let (values, shape) = array(&mut archive, "X")?;
    let [rows, width] = shape[..] else {
        bail!("X has {} dimensions, it must have two", shape.len());
    };
    let (rows, width) = (rows as usize, width as usize);
    if rows == 0 || width == 0 {
        bail!("X is empty");
    }
    let labels = archive
        .index_for_name("y.npy")
        .is_some()
        .then(|| array(&mut archive, "y"))
        .transpose()?
        .map(|(labels, _)| labels);
    if let Some(labels) = labels.as_ref().filter(|labels| labels.len() != rows) {
        bail!("y has {} labels for {rows} rows of X", labels.len());
    }
    let matrix = Matrix {
        values,
        columns: width,
        labels: labels.map(|labels| labels.iter().map(|label| *label != 0.0).collect()),
    };
    let Some(picked) = columns else {
        return Ok(matrix);
    };
    let picked: Vec<usize> = picked
        .iter()
        .map(|name| {
            let column = name.parse().ok().filter(|column| *column < width);
            column.with_context(|| format!("there is no column {name}: X has columns 0 to {}", width - 1))
        })
        .collect::<Result<_>>()?;
    let values = matrix
        .values
        .chunks_exact(width)
        .flat_map(|row| picked.iter().map(|column| row[*column]));
    Ok(Matrix {
        values: values.collect(),
        columns: picked.len(),
        labels: matrix.labels,
    })
}

/// One array of an archive in row order, and its shape.
fn array(archive: &mut ZipArchive<File>, name: &str) -> Result<(Vec<f64>, Vec<u64>)> {
    let member = archive
        .by_name(&format!("{name}.npy"))
        .with_context(|| format!("there is no array {name}"))?;
    let mut bytes = Vec::new();
    let most = 8 * MAX_VALUES + MAX_HEADER_BYTES;
    member.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        bail!("array {name} is larger than {most} bytes");
    }
    refuse_long_header(&bytes).with_context(|| format!("array {name}"))?;
    let array = NpyFile::new(Cursor::new(bytes)).with_context(|| format!("array {name}"))?;
    let shape = array.shape().to_vec();
    let count = shape
        .iter()
        .try_fold(1_u64, |product, size| product.checked_mul(*size));
    if count.is_none_or(|count| count > MAX_VALUES as u64) {
        bail!("array {name} of shape {shape:?} has more than {MAX_VALUES} values");
    }
    let order = array.order();
    let values = numbers(array).with_context(|| format!("array {name}"))?;
    Ok(match shape[..] {
        [rows, columns] if order == Order::Fortran => {
            (transposed(&values, rows as usize, columns as usize), shape)
        }
        _ => (values, shape),
    })
}

/// The parser of headers calls itself for every bracket, so a long one could exhaust the stack.
fn refuse_long_header(bytes: &[u8]) -> Result<()> {
    let length = match bytes {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, low, high, ..] => {
            usize::from(u16::from_le_bytes([*low, *high]))
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
            u32::from_le_bytes([*a, *b, *c, *d]) as usize
        }
        _ => bail!("this is not a NumPy array"),
    };
    if length > MAX_HEADER_BYTES {
        bail!("its header has {length} bytes, at most {MAX_HEADER_BYTES} are read");
    }
    Ok(())
}

fn numbers(array: NpyFile<Cursor<Vec<u8>>>) -> Result<Vec<f64>> {
    /// Reads the array as `$type` where that is what it holds.
    macro_rules! try_as {
        ($array:ident: $($type:ty => $convert:expr),+ $(,)?) => {{
            let array = $array;
            $(
                let array = match array.try_data::<$type>() {
                    Ok(data) => return data.map(|value| Ok($convert(value?))).collect(),
                    Err(array) => array,
                };
            )+
            bail!("it holds {}, not numbers", array.dtype().descr())
        }};
    }
    try_as!(array:
        f64 => |value: f64| value,
        f32 => f64::from,
        i64 => |value: i64| value as f64,
        i32 => f64::from,
        i16 => f64::from,
        i8 => f64::from,
        u64 => |value: u64| value as f64,
        u32 => f64::from,
        u16 => f64::from,
        u8 => f64::from,
        bool => |value: bool| f64::from(u8::from(value)),
    )
}

fn transposed(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..rows)
        .flat_map(|row| (0..columns).map(move |column| values[column * rows + row]))
        .collect()
}

fn csv(path: &Path, columns: Option<&[String]>) -> Result<Matrix> {
    let mut reader = csv::Reader::from_reader(recording::open(path)?);
    let names = reader.headers().context("there is no header")?.clone();
    let find = |wanted: &str| names.iter().position(|name| name == wanted);
    let picked: Option<Vec<usize>> = columns
        .map(|columns| {
            let known: Vec<_> = names.iter().collect();
            let position = |name: &String| {
                find(name).with_context(|| format!("there is no column `{name}`, only {}", known.join(", ")))
            };
            columns.iter().map(position).collect()
        })
        .transpose()?;
    let label = LABELS.into_iter().find_map(find);
    let mut values = Vec::new();
    let mut labels = label.map(|_| Vec::new());
    let mut picked = picked;
    for (row, record) in reader.records().enumerate() {
        let record = record?;
        let picked = picked.get_or_insert_with(|| numeric(&names, &record));
        if picked.is_empty() {
            bail!("there is no column of numbers");
        }
        for column in picked {
            let cell = record.get(*column).unwrap_or_default();
            let value = number_in(cell, &names[*column]).with_context(|| format!("row {row}"))?;
            values.push(value.with_context(|| format!("row {row}: column {} is empty", &names[*column]))?);
        }
        if values.len() > MAX_VALUES {
            bail!("there are more than {MAX_VALUES} values");
        }
        if let (Some(labels), Some(label)) = (&mut labels, label) {
            labels.push(is_one(record.get(label).unwrap_or_default()));
        }
    }
    let Some(columns) = picked.map(|picked| picked.len()).filter(|_| !values.is_empty()) else {
        bail!("there are no rows");
    };
    Ok(Matrix {
        values,
        columns,
        labels,
    })
}

/// The columns whose first cell is a number, but for those with a meaning of their own.
fn numeric(names: &csv::StringRecord, first: &csv::StringRecord) -> Vec<usize> {
    (0..names.len())
        .filter(|&column| {
            let cell = first.get(column).unwrap_or_default().trim();
            !RESERVED.contains(&&names[column]) && cell.parse::<f64>().is_ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use npyz::WriterBuilder;
    use std::io::Write;

    /// The bytes of a two-dimensional array.
    fn npy(values: &[f64], shape: &[u64], order: Order) -> Vec<u8> {
        let mut bytes = Vec::new();
        let options = npyz::WriteOptions::new()
            .default_dtype()
            .shape(shape)
            .order(order);
        let mut writer = options.writer(&mut bytes).begin_nd().unwrap();
        writer.extend(values).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn check(members: &[(&str, Vec<u8>)], columns: Option<&[String]>) -> Result<Matrix> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.npz");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        for (name, bytes) in members {
            let options = zip::write::SimpleFileOptions::default();
            archive.start_file(*name, options).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap();
        Matrix::read(&path, columns)
    }

    #[test]
    fn both_orders_of_an_array_give_the_same_rows() {
        let labels = npy(&[0.0, 1.0], &[2], Order::C);
        let rows = npy(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], Order::C);
        let c = check(&[("X.npy", rows), ("y.npy", labels)], None).unwrap();
        let rows = npy(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0], &[2, 3], Order::Fortran);
        let fortran = check(&[("X.npy", rows)], None).unwrap();
        assert_eq!((c.rows(), c.columns), (2, 3));
        assert_eq!(c.values, fortran.values);
        assert_eq!(c.labels, Some(vec![false, true]));
        let rows = npy(&[1.0, 2.0, 3.0, 4.0], &[2, 2], Order::C);
        let picked = check(&[("X.npy", rows)], Some(&["1".to_owned()])).unwrap();
        assert_eq!(picked.values, [2.0, 4.0]);
    }

    #[test]
    fn what_is_not_two_dimensions_of_numbers_is_refused() {
        let refused = |members: &[(&str, Vec<u8>)]| format!("{:#}", check(members, None).unwrap_err());
        assert!(refused(&[("Z.npy", vec![])]).contains("no array X"));
        assert!(refused(&[("X.npy", b"text".to_vec())]).contains("not a NumPy array"));
        let flat = npy(&[1.0, 2.0], &[2], Order::C);
        assert!(refused(&[("X.npy", flat)]).contains("1 dimensions"));
        let (rows, labels) = (npy(&[1.0, 2.0], &[2, 1], Order::C), npy(&[1.0], &[1], Order::C));
        assert!(refused(&[("X.npy", rows), ("y.npy", labels)]).contains("1 labels for 2 rows"));
        let mut long = b"\x93NUMPY\x01\x00\xff\xff".to_vec();
        long.resize(70_000, b'(');
        assert!(refused(&[("X.npy", long)]).contains("65535 bytes"));
        let huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 9999999), }";
        let mut header = b"\x93NUMPY\x01\x00".to_vec();
        header.extend((huge.len() as u16).to_le_bytes());
        header.extend(huge.as_bytes());
        assert!(refused(&[("X.npy", header)]).contains("more than"));
    }

    #[test]
    fn csv_tables_name_the_row_and_column_that_are_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Matrix::read(&path, None)
        };
        let matrix = read("a,b,y\n1,2,0\n3,4,1\n").unwrap();
        assert_eq!((matrix.values, matrix.columns), (vec![1.0, 2.0, 3.0, 4.0], 2));
        assert_eq!(matrix.labels, Some(vec![false, true]));
        let error = format!("{:#}", read("a,b\n1,2\n3,\n").unwrap_err());
        assert!(error.contains("row 1: column b is empty"), "{error}");
    }
}
