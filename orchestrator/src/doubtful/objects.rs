//! Names of objects in a migration that work and may not do what is meant: told, and
//! nothing is refused for them.

use drover_pipeline::config::{Problem, nearest};
use drover_pipeline::extract::drift::Drift;
use drover_pipeline::extract::{Object, Parity, Standing};

/// Objects that the connector lists as not supported and the source shows all the
/// same: they are read as plain records.
pub(crate) fn unsupported(
    wanted: &[String],
    parity: Option<&Parity>,
    objects: &[Object],
) -> Vec<Problem> {
    let told = wanted.iter().enumerate().filter_map(|(index, name)| {
        objects.iter().find(|object| object.name == *name)?;
        let standings = parity?.standings(name);
        let why = standings.iter().find_map(|standing| match standing {
            Standing::NotSupported(why) => Some(why),
            _ => None,
        })?;
        Some(Problem::at(
            format!("objects[{index}]"),
            format!(
                "{name} is read as plain records although it is listed as not supported: {why}"
            ),
            "remove it, unless its plain records are wanted",
        ))
    });
    told.collect()
}

/// Objects that `drift` names and nothing migrates: mostly a typo.
pub(crate) fn undrifted(drift: &Drift, wanted: &[String], objects: &[Object]) -> Vec<Problem> {
    let shown = || objects.iter().map(|object| object.name.as_str());
    let names = drift.objects.keys();
    let unknown = names.filter(|name| !wanted.contains(name) && !shown().any(|one| one == *name));
    let told = unknown.map(|name| {
        let advice = match nearest(name, shown()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "remove it, or grant the right to see it".to_owned(),
        };
        let what = format!("the source shows no object `{name}`, so nothing is done by this");
        Problem::at(format!("drift.{name}"), what, advice)
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use drover_pipeline::extract::NotSupported;
    use drover_pipeline::extract::drift::Rules;

    use super::*;

    fn shown(names: &[&str]) -> Vec<Object> {
        let object = |name: &&str| Object {
            name: (*name).to_owned(),
            ..Object::default()
        };
        names.iter().map(object).collect()
    }

    fn texts(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_listed_as_not_supported_is_told_where_it_is_read() {
        let parity = Parity {
            not_supported: vec![NotSupported {
                why: "Chatter".to_owned(),
                objects: vec!["FeedItem".to_owned(), "*History".to_owned()],
            }],
            ..Parity::default()
        };
        let wanted = ["Contact", "FeedItem", "CaseHistory", "LeadHistory"].map(str::to_owned);
        let objects = shown(&["Contact", "FeedItem", "CaseHistory"]);
        // What the source does not show is refused elsewhere.
        assert_eq!(
            texts(&unsupported(&wanted, Some(&parity), &objects)),
            [
                "objects[1]: FeedItem is read as plain records although it is listed as not \
                 supported: Chatter; remove it, unless its plain records are wanted",
                "objects[2]: CaseHistory is read as plain records although it is listed as not \
                 supported: Chatter; remove it, unless its plain records are wanted",
            ]
        );
        assert!(unsupported(&wanted, None, &objects).is_empty());
    }

    #[test]
    fn a_drift_rule_of_no_object_is_told() {
        let names = ["Contact", "Contcat", "Hidden"];
        let drift = Drift {
            objects: names.map(|name| (name.to_owned(), Rules::default())).into(),
            ..Drift::default()
        };
        let told = undrifted(&drift, &["Hidden".to_owned()], &shown(&["Contact"]));
        assert_eq!(
            texts(&told),
            [
                "drift.Contcat: the source shows no object `Contcat`, so nothing is done by this; \
                 did you mean `Contact`?"
            ]
        );
    }
}
