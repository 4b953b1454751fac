//! Which dead letters a verb is about.

use clap::{Args, ValueEnum};
use drover_pipeline::Code;
use drover_pipeline::deadletter::DeadLetter;
use drover_pipeline::record::Millis;
use drover_pipeline::spec::Stage;

use crate::failure::{Failure, Result};
use crate::lookup;

/// A letter must match every option that is given.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Filter {
    /// The record: its key, with or without the slot; may stand several times.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Vec<String>,
    /// The error's code: TOO_LONG.
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// The object in the source: Contact.
    #[arg(long, value_name = "OBJECT")]
    pub(crate) object: Option<String>,
    /// The field in the source, the entity or the target: Email, contact.email.
    #[arg(long, value_name = "FIELD")]
    pub(crate) field: Option<String>,
    /// Written at or after: 2026-11-22T10:00:00Z, 2026-11-22, or an age as 2h.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Written before.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// The stage that gave up.
    #[arg(long, value_enum, value_name = "STAGE")]
    pub(crate) stage: Option<StageName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StageName {
    Extractor,
    Transformer,
    Loader,
}

impl StageName {
    fn stage(self) -> Stage {
        match self {
            StageName::Extractor => Stage::Extractor,
            StageName::Transformer => Stage::Transformer,
            StageName::Loader => Stage::Loader,
        }
    }
}

/// A filter whose moments are read.
#[derive(Debug)]
pub(crate) struct Matcher {
    filter: Filter,
    since: Option<Millis>,
    until: Option<Millis>,
}

impl Filter {
    /// Whether it lets everything through.
    pub(crate) fn is_empty(&self) -> bool {
        self.key.is_empty()
            && self.stage.is_none()
            && [
                &self.code,
                &self.object,
                &self.field,
                &self.since,
                &self.until,
            ]
            .iter()
            .all(|option| option.is_none())
    }

    /// Reads its moments; ages count from `now`.
    pub(crate) fn matcher(self, now: Millis) -> Result<Matcher> {
        let moment = |text: &Option<String>, option: &str| {
            text.as_deref()
                .map(|text| crate::when::parse(text, now))
                .transpose()
                .map_err(|told| {
                    let advice = format!("mend --{option}");
                    Failure::new(Code::ConfigInvalid, told, advice)
                })
        };
        if let Some(code) = &self.code
            && !Code::ALL.iter().any(|known| known.as_str() == code)
        {
            let told = format!("there is no code `{code}`");
            let advice = "`drover explain` lists them";
            return Err(Failure::new(Code::ConfigInvalid, told, advice).into());
        }
        Ok(Matcher {
            since: moment(&self.since, "since")?,
            until: moment(&self.until, "until")?,
            filter: self,
        })
    }
}

impl Matcher {
    /// Whether the letter is meant.
    pub(crate) fn takes(&self, letter: &DeadLetter) -> bool {
        let filter = &self.filter;
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        (filter.key.is_empty() || filter.key.iter().any(|key| is_of(letter, key)))
            && is(&filter.code, &letter.code)
            && is(&filter.object, &letter.object)
            && filter.field.as_deref().is_none_or(|field| {
                let place = letter.place.as_deref().unwrap_or_default();
                names(place, field)
            })
            && filter
                .stage
                .is_none_or(|stage| stage.stage() == letter.stage)
            && self.since.is_none_or(|since| letter.at >= since)
            && self.until.is_none_or(|until| letter.at < until)
    }
}

/// Whether the letter is of the record that a person names.
pub(crate) fn is_of(letter: &DeadLetter, key: &str) -> bool {
    lookup::names(&letter.topic_key(), key)
}

/// Whether a place (`Contact.Email -> contact.email`) names a field, by its
/// last word or in full.
fn names(place: &str, field: &str) -> bool {
    place
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| !word.is_empty())
        .any(|word| {
            word == field
                || word
                    .strip_suffix(field)
                    .is_some_and(|owner| owner.ends_with('.'))
        })
}

#[cfg(test)]
mod tests {

    use super::super::tests::letter;
    use super::*;

    #[test]
    fn each_option_narrows() {
        let one = letter(1, Code::BadEmail, 5_000);
        let of = |filter: Filter| filter.matcher(10_000).expect("it reads").takes(&one);
        let text = |text: &str| Some(text.to_owned());
        let all = Filter::default();
        assert!(all.is_empty() && of(all.clone()));
        for (filter, taken) in [
            (
                Filter {
                    key: vec!["salesforce/Contact/1".into()],
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    key: vec!["x".into(), "transformer/salesforce/Contact/1".into()],
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    key: vec!["salesforce/Contact/11".into()],
                    ..all.clone()
                },
                false,
            ),
            (
                Filter {
                    code: text("BAD_EMAIL"),
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    code: text("TOO_LONG"),
                    ..all.clone()
                },
                false,
            ),
            (
                Filter {
                    object: text("Contact"),
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    object: text("Account"),
                    ..all.clone()
                },
                false,
            ),
            (
                Filter {
                    field: text("contact.email"),
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    field: text("email"),
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    field: text("mail"),
                    ..all.clone()
                },
                false,
            ),
            (
                Filter {
                    since: text("6s"),
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    since: text("4s"),
                    ..all.clone()
                },
                false,
            ),
            (
                Filter {
                    until: text("6s"),
                    ..all.clone()
                },
                false,
            ),
            (
                Filter {
                    until: text("1970-01-02"),
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    stage: Some(StageName::Transformer),
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    stage: Some(StageName::Loader),
                    ..all.clone()
                },
                false,
            ),
        ] {
            assert!(!filter.is_empty());
            assert_eq!(of(filter.clone()), taken, "{filter:?}");
        }
        assert!(
            Filter {
                since: text("soon"),
                ..all.clone()
            }
            .matcher(0)
            .is_err()
        );
        assert!(
            Filter {
                code: text("TOOLONG"),
                ..all
            }
            .matcher(0)
            .is_err()
        );
    }

    #[test]
    fn a_slot_belongs_to_its_record() {
        let mut one = letter(1, Code::TargetRefused, 5);
        one.stage = Stage::Loader;
        one.key = "salesforce/Contact/1#contact".into();
        assert!(is_of(&one, "salesforce/Contact/1"));
        assert!(is_of(&one, "salesforce/Contact/1#contact"));
        assert!(!is_of(&one, "salesforce/Contact/1#company"));
        assert!(names(
            "contact, constraint contact_email_check",
            "contact_email_check"
        ));
    }
}
