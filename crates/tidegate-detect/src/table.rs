//! Tables without time: an isolation forest on the rows as they are.
//!
//! With [`Kind::Plain`], 100 trees and 256 rows it does what scikit-learn's `IsolationForest` does.
//! A score here is scikit-learn's `score_samples` with the sign turned: above 0 to 1, higher is
//! more anomalous.

use crate::forest::{Forest, Kind, MAX_SUBSAMPLE, MAX_TREES, MAX_WIDTH, Rows};

/// Most columns of a table.
pub const MAX_COLUMNS: usize = MAX_WIDTH;

/// How to fit a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableOptions {
    /// How the forest splits.
    pub forest: Kind,
    /// Trees, 1 to [`MAX_TREES`].
    pub trees: usize,
    /// Rows per tree, 2 to [`MAX_SUBSAMPLE`]; all of a smaller table.
    pub subsample: usize,
    /// The same seed, rows and build give the same scores.
    pub seed: u64,
}

impl TableOptions {
    /// 100 trees on 256 rows each.
    #[must_use]
    pub fn new(forest: Kind, seed: u64) -> Self {
        Self {
            forest,
            trees: 100,
            subsample: 256,
            seed,
        }
    }
}

/// Why a table cannot be fitted or scored.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TableError {
    /// A forest isolates rows from each other.
    #[error("the table has {rows} rows, at least 2 are needed")]
    TooShort {
        /// How many rows it has.
        rows: usize,
    },
    /// No column, or more than [`MAX_COLUMNS`].
    #[error("the table has {columns} columns, it must have 1 to {MAX_COLUMNS}")]
    Columns {
        /// How many columns it has.
        columns: usize,
    },
    /// The values do not fill the last row.
    #[error("{values} values are no whole number of rows of {columns} columns")]
    Ragged {
        /// How many values there are.
        values: usize,
        /// How many columns.
        columns: usize,
    },
    /// Not a number, or one that is infinite as f32.
    #[error("row {row}, column {column} is {value}: every value must be finite and below 3.4e38")]
    NotFinite {
        /// The row, from 0.
        row: usize,
        /// The column, from 0.
        column: usize,
        /// The value.
        value: f64,
    },
    /// The table to score has other columns than the one fitted.
    #[error("the table has {columns} columns, the fitted one had {fitted}")]
    OtherColumns {
        /// How many it has.
        columns: usize,
        /// How many the fitted one had.
        fitted: usize,
    },
    /// Trees or subsample out of range.
    #[error("{option} is {value}, it must be {allowed}")]
    Option {
        /// Which.
        option: &'static str,
        /// Its value.
        value: usize,
        /// What it may be.
        allowed: &'static str,
    },
}

/// A table of finite numbers, row after row.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    values: Vec<f32>,
    columns: usize,
}

impl Table {
    /// Rounds `values`, row after row of `columns` each, to f32 as scikit-learn does.
    ///
    /// # Errors
    ///
    /// See [`TableError`].
    pub fn new(values: &[f64], columns: usize) -> Result<Self, TableError> {
        if !(1..=MAX_COLUMNS).contains(&columns) {
            return Err(TableError::Columns { columns });
        }
        if !values.len().is_multiple_of(columns) {
            return Err(TableError::Ragged {
                values: values.len(),
                columns,
            });
        }
        if let Some(at) = values.iter().position(|&value| !(value as f32).is_finite()) {
            return Err(TableError::NotFinite {
                row: at / columns,
                column: at % columns,
                value: values[at],
            });
        }
        Ok(Self {
            values: values.iter().map(|&value| value as f32).collect(),
            columns,
        })
    }

    /// Its rows.
    #[must_use]
    pub fn rows(&self) -> Rows<'_> {
        Rows::new(&self.values, self.columns)
    }
}

/// A forest fitted to a table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableForest {
    forest: Forest,
    columns: usize,
}

impl TableForest {
    /// Fits `table`.
    ///
    /// # Errors
    ///
    /// See [`TableError`].
    pub fn fit(table: &Table, options: &TableOptions) -> Result<Self, TableError> {
        let refuse = |option, value, allowed| {
            Err(TableError::Option {
                option,
                value,
                allowed,
            })
        };
        if !(1..=MAX_TREES).contains(&options.trees) {
            return refuse("trees", options.trees, "1 to 1000");
        }
        if !(2..=MAX_SUBSAMPLE).contains(&options.subsample) {
            return refuse("subsample", options.subsample, "2 to 4096");
        }
        let rows = table.rows();
        if rows.len() < 2 {
            return Err(TableError::TooShort { rows: rows.len() });
        }
        let forest = Forest::grow(
            options.forest,
            rows,
            options.trees,
            options.subsample,
            options.seed,
        );
        Ok(Self {
            forest,
            columns: table.columns,
        })
    }

    /// The anomaly score of each row of `table`.
    ///
    /// # Errors
    ///
    /// [`TableError::OtherColumns`].
    pub fn scores(&self, table: &Table) -> Result<Vec<f32>, TableError> {
        if table.columns != self.columns {
            return Err(TableError::OtherColumns {
                columns: table.columns,
                fitted: self.columns,
            });
        }
        let rows = table.rows();
        let mut scores = vec![0.0; rows.len()];
        self.forest.score_batch(rows, &mut scores);
        Ok(scores)
    }

    /// The forest itself.
    #[must_use]
    pub fn forest(&self) -> &Forest {
        &self.forest
    }
}
