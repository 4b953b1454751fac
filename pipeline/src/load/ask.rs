//! What a target has of single records, asked by a person through the loader's
//! own program: `drover-loader-… read`, JSON in, JSON out.

use serde::{Deserialize, Serialize};

use super::Loader;
use crate::error::{Code, Error, Result};
use crate::idempotency::TargetId;
use crate::record::{CanonicalKey, Order};

/// Which record is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// Its entity.
    pub entity: String,
    /// Its canonical key.
    pub key: CanonicalKey,
    /// The id that its idempotency entry names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_id: Option<TargetId>,
}

/// What the target has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The id under our key. `None` where a search finds nothing, which a
    /// target with a lagging index may say of a record that is there.
    pub id: Option<TargetId>,
    /// The order that the target's record carries, where it carries one.
    pub order: Option<Order>,
    /// The record itself, by the id that was found, else by the entry's.
    pub row: Option<serde_json::Value>,
}

/// Asks the target about each record.
pub async fn answer<L: Loader>(loader: &L, questions: &[Question]) -> Result<Vec<Answer>> {
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        let Some(entity) = drover_schemas::entity(&question.entity) else {
            let message = format!("there is no entity `{}`", question.entity);
            return Err(Error::new(Code::ConfigInvalid, message));
        };
        let found = loader.find(entity, &[&question.key]).await?;
        let found = found.into_iter().next().flatten();
        let (id, order) = found.map_or((None, None), |found| (Some(found.id), found.order));
        let row = match id.as_ref().or(question.target_id.as_ref()) {
            None => None,
            Some(id) => loader.read(entity, &[id]).await?.into_iter().next(),
        };
        // A target whose answer is not JSON is shown as it answers.
        let row = row.flatten().map(|text| {
            serde_json::from_str(&text).unwrap_or_else(|_| serde_json::Value::String(text))
        });
        answers.push(Answer { id, order, row });
    }
    Ok(answers)
}
