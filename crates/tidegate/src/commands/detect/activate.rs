//! `tidegate detect activate`: which model is in use, forwards and back.

use crate::cli::Place;
use crate::detection::shelf::Shelf;
use anyhow::Result;
use clap::Args;

/// Use another model, or go back to the one before
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate detect activate 20260101-120000
  tidegate detect activate --previous

A running gateway takes it at its next start. A damaged model, or one of another version, changes
nothing.")]
pub(super) struct Activate {
    /// The model to use, as `tidegate detect models` names it
    #[arg(required_unless_present = "previous", conflicts_with = "previous")]
    name: Option<String>,
    /// Go back to the model that was in use before
    #[arg(long)]
    previous: bool,
}

impl Activate {
    pub(super) fn run(self, place: &Place) -> Result<()> {
        let shelf = Shelf::new(&place.load()?.files);
        let name = match self.name {
            Some(name) => {
                shelf.activate(&name)?;
                name
            }
            None => shelf.roll_back()?,
        };
        anstream::println!("{name} is in use from the next start on");
        Ok(())
    }
}
