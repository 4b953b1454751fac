//! What a connector's binary answers to `spec`: everything `drover` has to know
//! of it, so that nothing outside the connector's folder names it.

use serde::{Deserialize, Serialize};

/// A connector's own description.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// `extractor`, `transformer` or `loader`.
    pub stage: Stage,
    /// The connector's name, as in `sourceType` or `targetType`.
    pub name: String,
    /// Drover's version it was built with.
    pub version: String,
    /// The JSON schema of its configuration.
    pub config_schema: serde_json::Value,
    /// An extractor's default mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<crate::transform::Mapping>,
    /// What becomes of each object of an extractor's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parity: Option<crate::extract::Parity>,
    /// The entities a loader takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<String>,
}

/// Which of the three stages a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Reads the source.
    Extractor,
    /// Maps raw records to canonical ones.
    Transformer,
    /// Writes to the target.
    Loader,
}

impl Stage {
    /// As in binary names: `drover-<stage>-<connector>`.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Extractor => "extractor",
            Stage::Transformer => "transformer",
            Stage::Loader => "loader",
        }
    }
}
