//! What a rule does to the value it reads: the first filled field, the map of
//! values, the form.

use std::borrow::Cow;

use drover_schemas::{Field, Value};

use crate::body::Body;
use crate::convert::{Fault, convert, convert_json};
use crate::form::bring;
use crate::json::Json;
use crate::plan::{More, Rule};

impl Rule {
    /// The first filled one of the rule's source fields: its place and its JSON.
    /// Further filled ones that no other rule reads are added to `unread`.
    pub fn read<'a>(&self, body: &Body<'a>, unread: &mut Vec<usize>) -> Option<(usize, &'a str)> {
        let filled = |place: usize| body.filled(place).map(|raw| (place, raw));
        let first = self.source.field().and_then(filled);
        let Some(more) = &self.more else {
            return first;
        };
        let mut read = first;
        for (place, spare) in &more.or {
            match (filled(*place), read) {
                (Some(found), None) => read = Some(found),
                (Some(_), Some(_)) if *spare => unread.push(*place),
                _ => {}
            }
        }
        read
    }

    /// What stands for an empty field.
    pub fn default(&self) -> Option<&Value<'static>> {
        self.more.as_ref()?.default.as_ref()
    }

    /// The value for the entity's field. `name` is the source's field; what is
    /// worth telling about the value is added to `remarks`.
    pub fn convert<'a, 'p: 'a>(
        &'p self,
        raw: &'a str,
        field: &Field,
        name: &str,
        body: &Body<'a>,
        remarks: &mut Vec<String>,
    ) -> Result<Value<'a>, Fault> {
        let Some(more) = &self.more else {
            return convert(raw, field);
        };
        let mut value = Json::of(raw)?;
        if !more.values.is_empty() {
            match more.mapped(&value, name, remarks) {
                Mapped::To(text) => value = Json::Text(text),
                Mapped::Empty => {
                    return match (&more.default, field.required) {
                        (Some(default), _) => Ok(default.clone()),
                        (None, true) => Err(Fault::new(
                            drover_pipeline::Code::RequiredMissing,
                            "the mapping empties the value, and the field must be filled",
                        )),
                        (None, false) => Ok(Value::Null),
                    };
                }
                Mapped::AsItIs => {}
            }
        }
        if let (Some(form), Json::Text(text)) = (more.form, &value) {
            let named = more.region_from.and_then(|place| body.filled(place));
            let named = named.and_then(|raw| match Json::of(raw) {
                Ok(Json::Text(text)) => Some(text),
                _ => None,
            });
            let region = named.as_deref().or(more.region.as_deref());
            let found = bring(text, form, region);
            // A country that the field names and nobody knows is no hindrance.
            let found = found.or_else(|| bring(text, form, more.region.as_deref()));
            match found {
                Some(text) => value = Json::Text(Cow::Owned(text)),
                None => remarks.push(format!(
                    "{name}: not every text can be read as a {}",
                    kind(form)
                )),
            }
        }
        convert_json(value, field)
    }
}

fn kind(form: drover_pipeline::transform::Form) -> &'static str {
    match form {
        drover_pipeline::transform::Form::Phone => "telephone number",
        drover_pipeline::transform::Form::Country => "country",
    }
}

/// What became of a value by the map of values.
enum Mapped<'p> {
    To(Cow<'p, str>),
    Empty,
    AsItIs,
}

impl More {
    fn mapped<'p>(&'p self, value: &Json<'_>, name: &str, remarks: &mut Vec<String>) -> Mapped<'p> {
        let text: &str = match value {
            Json::Text(text) => text,
            Json::Number(digits) => digits,
            Json::Bool(true) => "true",
            Json::Bool(false) => "false",
            _ => return Mapped::AsItIs,
        };
        let Some(separator) = self.separator else {
            return match self.values.get(text) {
                Some(Some(mapped)) => Mapped::To(Cow::Borrowed(mapped)),
                Some(None) => Mapped::Empty,
                None => {
                    remarks.push(self.unmapped(text, name));
                    Mapped::AsItIs
                }
            };
        };
        let mut all: Vec<&str> = Vec::new();
        for part in text.split(separator) {
            match self.values.get(part) {
                Some(Some(mapped)) => all.push(mapped),
                Some(None) => {}
                None => {
                    remarks.push(self.unmapped(part, name));
                    all.push(part);
                }
            }
        }
        if all.is_empty() {
            Mapped::Empty
        } else {
            Mapped::To(Cow::Owned(all.join(separator.encode_utf8(&mut [0; 4]))))
        }
    }

    /// A value that has no map. It is named only if the source lists it: any
    /// other one is a text that somebody wrote.
    fn unmapped(&self, value: &str, name: &str) -> String {
        if self.listed.contains(value) {
            format!("{name}: no map for the value `{value}`")
        } else {
            format!("{name}: no map for a value that the source does not list")
        }
    }
}
