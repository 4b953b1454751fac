//! A whole mapping, judged by the transformer that will work with it.

use drover_pipeline::Code;
use drover_pipeline::config::{Mappings, Problem, WHERE};
use drover_pipeline::control::Plan;

use super::placed;
use crate::failure::{Failure, Failures, Result};
use crate::migration::Migration;

/// Has the transformer compile the plan's mapping, so that what can't work is
/// told before anything is settled. What comes of the migration's own mappings
/// is told at its place in the file.
pub(crate) async fn judge(migration: &Migration, plan: &Plan) -> Result<()> {
    let Err(Failures(failures)) = migration.transformer.compile(plan).await else {
        return Ok(());
    };
    let mut told: Vec<Failure> = Vec::new();
    for failure in failures {
        let own = own(&migration.bus.config.mappings, &failure);
        let placed = own.map(|problem| placed(migration, vec![problem]).0);
        for failure in placed.unwrap_or_else(|| vec![failure]) {
            // Several slots of an object may have the same rule.
            if !told.contains(&failure) {
                told.push(failure);
            }
        }
    }
    Err(Failures(told))
}

/// What a transformer finds wrong with a mapping that is known to be wrong: only
/// what stands in the migration's file, at a place of which nothing was told. The
/// rest may be a consequence.
pub(crate) fn not_told(told: &Failures, more: Vec<Failure>) -> Vec<Failure> {
    let place = |failure: &Failure| {
        let (path, _) = failure.text.split_once(": ")?;
        path.strip_prefix("mappings.").map(str::to_owned)
    };
    let places: Vec<String> = told.0.iter().filter_map(place).collect();
    let is_new = |failure: &Failure| {
        let path = place(failure);
        // What is wrong with an object does not follow from one of its rules.
        let is_rule = |path: &str| path.contains('.');
        let same =
            |path: &str, p: &str| is_or_is_in(path, p) || is_rule(path) && is_or_is_in(p, path);
        path.is_some_and(|path| !places.iter().any(|p| same(&path, p)))
    };
    more.into_iter().filter(is_new).collect()
}

/// Whether a path is the other one, or leads to something within it.
fn is_or_is_in(path: &str, other: &str) -> bool {
    path.strip_prefix(other)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The problem as one of the migration's file, if that is where it comes from.
fn own(mappings: &Mappings, failure: &Failure) -> Option<Problem> {
    if failure.code != Code::ConfigInvalid {
        return None;
    }
    let (path, rest) = failure.text.split_once(": ")?;
    let (message, advice) = rest.rsplit_once("; ")?;
    let (object, path) = path.strip_prefix("objects.")?.split_once(".slots.")?;
    let (_, path) = path.split_once('.')?;
    let path = if let Some(asked) = path.strip_prefix("where.") {
        let mut own = mappings.filters.get(object)?.keys();
        own.find(|field| is_or_is_in(asked, field))?;
        format!("mappings.{object}.{WHERE}.{asked}")
    } else {
        let rule = path.strip_prefix("fields.")?;
        let (canonical, below) = rule.split_at(rule.find('.').unwrap_or(rule.len()));
        let of_object = mappings.by_object.get(object).into_iter().flatten();
        let source = of_object.map(|(source, to)| (format!("{object}.{source}"), to));
        let everywhere = mappings.everywhere.iter();
        let everywhere = everywhere.map(|(source, to)| (source.clone(), to));
        let (source, _) = source.chain(everywhere).find(|(_, to)| *to == canonical)?;
        format!("mappings.{source}{below}")
    };
    Some(Problem::at(path, message, advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transformer_adds_what_nobody_has_told() {
        let failure = |path: &str| Failure::new(Code::ConfigInvalid, format!("{path}: x"), "y");
        let told = Failures(vec![
            failure("mappings.Contact.Phne"),
            failure("objects[1]"),
            failure("mappings.Contact.Fax.region"),
        ]);
        let more = [
            "mappings.Contact.Phne.region",
            "mappings.Contact.Phne",
            "mappings.Contact.Fax",
            "mappings.Contact.Phone.region",
            "mappings.Contact.$where.Born",
            "mappings.Contact",
            "objects.Lead.slots.lead.fields.email",
        ];
        let added = not_told(&told, more.map(failure).into());
        let added: Vec<&str> = added.iter().map(|f| f.text.as_str()).collect();
        assert_eq!(
            added,
            [
                "mappings.Contact.Phone.region: x; y",
                "mappings.Contact.$where.Born: x; y",
                "mappings.Contact: x; y",
            ]
        );
    }

    #[test]
    fn what_the_file_asked_for_is_told_at_its_place() {
        let text = |text: &str| text.to_owned();
        let mut mappings = Mappings::default();
        mappings.everywhere.insert(text("Fax"), text("faxNumber"));
        let own_rules = [(text("Phone"), text("phoneNumber"))].into();
        mappings.by_object.insert(text("Contact"), own_rules);
        let filter = [(text("LeadSource"), serde_json::json!({"nt": "x"}))].into();
        mappings.filters.insert(text("Contact"), filter);
        let told = |path: &str| {
            let failure = Failure::new(Code::ConfigInvalid, format!("{path}: wrong"), "mend it");
            own(&mappings, &failure).map(|problem| (problem.path, problem.message))
        };
        let at = |path: &str| Some((text(path), text("wrong")));
        assert_eq!(
            told("objects.Contact.slots.contact.where.LeadSource"),
            at("mappings.Contact.$where.LeadSource")
        );
        assert_eq!(
            told("objects.Contact.slots.contact.where.LeadSource.not[1]"),
            at("mappings.Contact.$where.LeadSource.not[1]")
        );
        assert_eq!(
            told("objects.Contact.slots.contact.where.LeadSourceX"),
            None
        );
        assert_eq!(
            told("objects.Contact.slots.contact.fields.phoneNumber.region"),
            at("mappings.Contact.Phone.region")
        );
        assert_eq!(
            told("objects.Lead.slots.lead.fields.faxNumber"),
            at("mappings.Fax")
        );
        assert_eq!(told("objects.Lead.slots.lead.fields.email"), None);
    }
}
