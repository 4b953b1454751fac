//! What is wrong with a mapping is told at once, by path, with what to do.
#![allow(clippy::unwrap_used)]

mod common;

use common::{mapping, object};
use drover_pipeline::extract::Object;
use drover_pipeline::transform::Transformer;
use drover_transformer_mapper::Mapper;
use serde_json::{Value as Json, json};

fn told(json: Json, objects: &[Object]) -> Vec<String> {
    Mapper::new(&mapping(json), objects)
        .expect_err("problems")
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The problems of one rule of a contact.
fn rule(target: &str, rule: Json) -> Vec<String> {
    let mut thing = object(
        "Thing",
        "Name: string, Active: boolean, Born: date, Seen: datetime, Home: address, Boss: reference, Age: int",
    );
    thing.fields[5].references = vec!["User".into()];
    let fields = json!({"lastName": "Name", target: rule});
    let json = json!({"objects": {
        "Thing": {"slots": {"main": {"entity": "contact", "fields": fields}}},
        "Firm": {"slots": {"main": {"entity": "company", "fields": {"name": "Name"}}}},
    }});
    match Mapper::new(&mapping(json), &[thing]) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn at(path: &str, text: &str) -> Vec<String> {
    vec![format!("objects.Thing.slots.main.fields.{path}: {text}")]
}

#[test]
fn all_problems_come_at_once() {
    let json = json!({"objects": {
        "A": {"slots": {"x": {"entity": "contct", "fields": {}}}},
        "B": {"slots": {}},
        "C": {"slots": {"x": {"entity": "contact", "where": {"Stage": {"a": 1}, "Nme": "x"}, "emptyWithout": ["Nam"],
              "fields": {"lastname": "Nme", "fistName": "Name"}}}},
        "D": {"slots": {"a#b": {"entity": "contact", "fields": {"lastName": "Anything"}}}},
    }});
    assert_eq!(
        told(json, &[object("C", "Name: string, Stage: string")]),
        [
            "objects.A.slots.x.entity: there is no canonical entity `contct`; did you mean `contact`?",
            "objects.B.slots: the object has 0 slots; give it one to 64, or leave the object out",
            "objects.C.slots.x.where.Nme: the source's object C shows no field `Nme`; \
             did you mean `Name`?; or grant the right to see it",
            "objects.C.slots.x.where.Stage.a: `a` is no condition; write a value, a list of values, \
             `{ not: … }` or `{ atLeast: …, below: … }`",
            "objects.C.slots.x.emptyWithout: the source's object C shows no field `Nam`; \
             did you mean `Name`?; or grant the right to see it",
            "objects.C.slots.x.fields.fistName: the entity contact has no field `fistName`; did you mean `firstName`?",
            "objects.C.slots.x.fields.lastname: the entity contact has no field `lastname`; did you mean `lastName`?",
            "objects.C.slots.x.fields: contact.lastName is required and has no rule; map a source field to lastName",
            "objects.D.slots.a#b: the slot's name is empty or has `#`, `/` or `|` in it; use letters, digits and hyphens",
        ]
    );
}

/// A filter that no record can meet would end green with nothing loaded.
#[test]
fn a_filter_that_nothing_meets_is_told_by_the_source_s_own_types() {
    let json = json!({"objects": {"C": {"slots": {"x": {"entity": "contact",
        "where": {
            "Active": "false", "Born": {"atLeast": "soon", "belw": "2026-01-31"},
            "Age": [5, "6"], "Name": {"not": 7}, "Vendor": true,
            "Seen": {"atLeast": "2026-02-30T00:00:00Z", "below": "2026-13-01"},
            "Due": "2026-02-30",
        },
        "fields": {"lastName": "Name"}}}}}});
    let described = object(
        "C",
        "Name: string, Active: boolean, Born: date, Age: int, Vendor: own type, Seen: datetime, Due: date",
    );
    let at = |place: &str| format!("objects.C.slots.x.where.{place}");
    assert_eq!(
        told(json, &[described]),
        [
            at(
                "Active: C.Active is declared as boolean, and `\"false\"` is a text; \
                write `false`, without quotes"
            ),
            at("Age[1]: C.Age is declared as int, and `\"6\"` is a text; \
                write `6`, without quotes"),
            at("Born.belw: `belw` is no condition; write `below`"),
            at(
                "Born.atLeast: `\"soon\"` is no number, date or time to compare C.Born with; \
                write a number, a date (2026-01-31) or a time with its zone \
                (2026-01-31T09:00:00Z)"
            ),
            at("Due: `\"2026-02-30\"` is a day that no calendar has; write a day that there is"),
            at("Name.not: C.Name is declared as string, and `7` is a number; put it in quotes"),
            at(
                "Seen.atLeast: `\"2026-02-30T00:00:00Z\"` is a day that no calendar has; \
                write a day that there is"
            ),
            at(
                "Seen.below: `\"2026-13-01\"` is a day that no calendar has; write a day that there is"
            ),
        ]
    );
}

#[test]
fn fields_that_the_source_does_not_show() {
    assert_eq!(
        rule("title", json!("Nane")),
        at(
            "title",
            "the source's object Thing shows no field `Nane`; did you mean `Name`?; or grant the right to see it"
        )
    );
    assert!(rule("title", json!({"from": "Nane", "optional": true})).is_empty());
    // An object that was not described may have any field.
    let json = json!({"objects": {"Thing": {"slots": {"main": {
        "entity": "contact", "fields": {"lastName": "Anything"}}}}}});
    assert!(Mapper::new(&mapping(json.clone()), &[]).is_ok());
    assert!(Mapper::new(&mapping(json), &[object("Thing", "")]).is_ok());
}

#[test]
fn references() {
    let good = json!({"from": "Name", "reference": "Firm#main"});
    assert!(rule("companyId", good).is_empty());
    assert_eq!(
        rule("companyId", json!("Name")),
        at(
            "companyId",
            "companyId is a reference to a company, and the rule doesn't say to what; \
                         write `{ from: FIELD, reference: OBJECT#SLOT }`"
        )
    );
    for unknown in ["Firm#man", "Firm", "Frm#main"] {
        assert_eq!(
            rule("companyId", json!({"from": "Name", "reference": unknown})),
            at(
                "companyId.reference",
                &format!(
                    "the mapping has no object and slot `{unknown}`; did you mean `Firm#main`?"
                )
            )
        );
    }
    assert_eq!(
        rule(
            "companyId",
            json!({"from": "Name", "reference": "Thing#main"})
        ),
        at(
            "companyId.reference",
            "Thing#main gives a contact, and companyId points to a company; \
                                   name an object and slot that gives a company"
        )
    );
    assert_eq!(
        rule(
            "companyId",
            json!({"from": "Boss", "reference": "Firm#main"})
        ),
        at(
            "companyId.reference",
            "the source field Boss never points to Firm, but to User; name one of those objects"
        )
    );
    assert_eq!(
        rule("title", json!({"from": "Name", "reference": "Firm#main"})),
        at(
            "title",
            "`reference` is for references, and title is a text; remove `reference`"
        )
    );
    assert_eq!(
        rule("title", json!({"from": "Name", "required": true})),
        at(
            "title",
            "`required` is for references, and title is a text; remove `required`"
        )
    );
}

#[test]
fn types_that_never_fit() {
    for (target, source, declared, holds) in [
        ("birthDate", "Active", "boolean", "a date"),
        ("title", "Active", "boolean", "a text"),
        ("birthDate", "Seen", "datetime", "a date"),
        ("createdAt", "Born", "date", "a date with time and zone"),
        ("createdAt", "Age", "int", "a date with time and zone"),
        ("title", "Home", "address", "a text"),
    ] {
        assert_eq!(
            rule(target, json!(source)),
            at(
                target,
                &format!(
                    "the source field {source} is declared as {declared}, and {target} is {holds}; \
                                 map another source field, or leave it to `custom`"
                )
            )
        );
    }
}

#[test]
fn a_field_that_is_never_an_address_or_a_code() {
    for (target, source, declared, holds) in [
        ("email", "Born", "date", "an e-mail address"),
        ("email", "Age", "int", "an e-mail address"),
        (
            "currency",
            "Boss",
            "reference",
            "a currency's code (three capital letters)",
        ),
        (
            "ownerType",
            "Boss",
            "reference",
            "the name of the entity that ownerId points to, which Drover fills in",
        ),
    ] {
        assert_eq!(
            rule(target, json!(source)),
            at(
                target,
                &format!(
                    "the source field {source} is declared as {declared}, and {target} is {holds}; \
                     map another source field, or leave it to `custom`"
                )
            )
        );
    }
    for (target, source) in [("email", "Name"), ("department", "Boss"), ("title", "Born")] {
        assert!(
            rule(target, json!(source)).is_empty(),
            "{source} to {target}"
        );
    }
    // A map of values makes of it what is due.
    let mapped = json!({"from": "Active", "values": {"true": "EUR", "false": "USD"}});
    assert!(rule("currency", mapped).is_empty());
}

#[test]
fn forms_that_nothing_can_have() {
    let form =
        |target: &str, from: &str, form: &str| rule(target, json!({"from": from, "as": form}));
    assert_eq!(
        form("mailingCountry", "Name", "phone"),
        at(
            "mailingCountry.as",
            "`as` makes a telephone number of a text, and contact.mailingCountry is a country; \
             remove `as`, or map another field"
        )
    );
    assert_eq!(
        form("email", "Name", "country"),
        at(
            "email.as",
            "`as` makes a country of a text, and contact.email is an e-mail address; \
             remove `as`, or map another field"
        )
    );
    assert_eq!(
        form("phoneNumber", "Born", "phone"),
        at(
            "phoneNumber.as",
            "`as` makes a telephone number of a text, and the source field Born is declared as date; \
             remove `as`, or map another field"
        )
    );
    for (target, source, to) in [
        ("phoneNumber", "Name", "phone"),
        ("phoneNumber", "Age", "phone"),
        ("department", "Name", "country"),
        ("mailingCountry", "Name", "country"),
    ] {
        assert!(form(target, source, to).is_empty(), "{source} to {target}");
    }
}

#[test]
fn constants() {
    assert!(rule("birthDate", json!({"constant": "2026-03-31"})).is_empty());
    assert_eq!(
        rule("birthDate", json!({"constant": "tomorrow"})),
        at(
            "birthDate.constant",
            "a text of 8 characters that is no date (YYYY-MM-DD); write a date"
        )
    );
    assert_eq!(
        rule("companyId", json!({"constant": "1"})),
        at(
            "companyId",
            "a reference can't be constant; write `from: FIELD`"
        )
    );
    for neither in [json!({}), json!({"from": "Name", "constant": "x"})] {
        assert_eq!(
            rule("title", neither),
            at(
                "title",
                "needs a source field or a constant, one of the two; write `from: FIELD` or `constant: TEXT`"
            )
        );
    }
}

#[test]
fn the_rules_of_custom_objects_are_judged_once() {
    let json = json!({"objects": {}, "customObjects": {"slots": {"record": {
        "entity": "record", "fields": {"type": {"constant": "$object"}, "nam": "Name"}}}}});
    let problem = "customObjects.slots.record.fields.nam: the entity record has no field `nam`; did you mean `name`?";
    assert_eq!(told(json.clone(), &[]), [problem]);
    let objects = [object("A__c", "Name: string"), object("B__c", "Id: id")];
    assert_eq!(told(json, &objects), [problem]);
}
