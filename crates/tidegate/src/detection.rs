//! Detection offline: recordings and tables that are read, models that are kept, and how well they do.

pub(crate) mod measure;
pub(crate) mod plots;
pub(crate) mod recording;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod rows;
pub(crate) mod shelf;
pub(crate) mod source;
pub(crate) mod table;
