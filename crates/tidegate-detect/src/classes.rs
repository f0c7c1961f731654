//! One model for each class of device, and one for the rest.

use crate::model::Model;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Models by device class.
///
/// A device is judged by its class's model where there is one, and else by the fallback. Within a
/// model it has its own profile if it was in training, and else the fleet's; where the model has
/// none, or there is no model, its readings are checked by the rules alone.
#[derive(Debug, Clone, Default)]
pub struct ClassModels {
    /// By the class that the registry names.
    pub by_class: BTreeMap<String, Arc<Model>>,
    /// For classes that are not there.
    pub fallback: Option<Arc<Model>>,
}

impl ClassModels {
    /// One model for all.
    #[must_use]
    pub fn one(model: Arc<Model>) -> Self {
        Self {
            by_class: BTreeMap::new(),
            fallback: Some(model),
        }
    }

    /// The model that devices of `class` are judged by.
    #[must_use]
    pub fn of(&self, class: &str) -> Option<&Arc<Model>> {
        self.by_class.get(class).or(self.fallback.as_ref())
    }
}
