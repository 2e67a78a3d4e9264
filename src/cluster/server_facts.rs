//! What a running server says about itself, as far as a plan is checked against it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the source's server says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// Parameters by name, as `SHOW` shows them; those that this user may not see are missing.
    pub settings: BTreeMap<String, String>,
}
