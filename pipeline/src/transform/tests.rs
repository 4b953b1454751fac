//! The merge of a migration's mappings into a connector's mapping.

use serde_json::{Value as Json, json};

use super::{Mapping, merge, merge_all};
use crate::config::{Mappings, Problem};
use crate::extract::{Object, SourceField};

fn connector() -> Mapping {
    let text = "
objects:
  Account:
    ignore: [SystemModstamp]
    slots:
      company:
        entity: company
        fields:
          name: Name
          phoneNumber: Phone
          description: Description
          parentId: { from: ParentId, reference: Account#company }
  Contact:
    slots:
      contact:
        entity: contact
        fields:
          lastName: LastName
          phoneNumber: Phone
          mobileNumber: MobilePhone
          companyId: { from: AccountId, reference: Account#company, required: true }
          managerId: { from: ReportsToId, reference: Contact#contact }
  Lead:
    slots:
      contact:
        entity: contact
        fields: { lastName: LastName, phoneNumber: Phone }
      company:
        entity: company
        emptyWithout: [Company]
        fields: { name: Company }
customObjects:
  slots:
    record:
      entity: record
      fields: { type: { constant: $object }, name: Name, createdAt: CreatedDate }
";
    Mapping::parse("mapping.yaml", text).expect("a good mapping")
}

fn objects() -> Vec<Object> {
    let object = |name: &str, fields: &str| Object {
        name: name.into(),
        custom: name.ends_with("__c"),
        count: None,
        fields: fields
            .split_whitespace()
            .map(|field| SourceField {
                name: field.into(),
                kind: match field {
                    "DoNotCall" => "boolean",
                    "Employer__c" | "AccountId" | "ReportsToId" | "ParentId" => "reference",
                    _ => "string",
                }
                .into(),
                references: match field {
                    "Employer__c" | "AccountId" => vec!["Account".into()],
                    "ReportsToId" => vec!["Contact".into()],
                    _ => Vec::new(),
                },
                ..SourceField::default()
            })
            .collect(),
        ..Object::default()
    };
    vec![
        object(
            "Account",
            "Name Phone Description ParentId SystemModstamp Owner_Account__c",
        ),
        object(
            "Contact",
            "LastName Phone MobilePhone Description AccountId ReportsToId DoNotCall Employer__c",
        ),
        object("Lead", "LastName Company Phone Description"),
        object("Invoice__c", "Name Title__c"),
        object("Nameless__c", "CreatedDate"),
    ]
}

fn mappings(json: &Json) -> Mappings {
    let mut mappings = Mappings::default();
    for (name, value) in json.as_object().expect("a group") {
        match value {
            Json::String(target) => {
                mappings.everywhere.insert(name.clone(), target.clone());
            }
            group => {
                let group = serde_json::from_value(group.clone()).expect("a group");
                mappings.by_object.insert(name.clone(), group);
            }
        }
    }
    mappings
}

fn merged(json: Json) -> Mapping {
    merge(&connector(), &mappings(&json), &objects())
        .unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn problems(json: Json) -> Vec<Problem> {
    merge(&connector(), &mappings(&json), &objects()).expect_err("problems")
}

fn told(json: Json) -> Vec<String> {
    problems(json).iter().map(ToString::to_string).collect()
}

fn fields(mapping: &Mapping, object: &str, slot: &str) -> Json {
    json!(mapping.objects[object].slots[slot].fields)
}

#[test]
fn without_mappings_the_connectors_stands() {
    assert_eq!(merged(json!({})), connector());
}

#[test]
fn the_playbooks_mappings() {
    let mapping = merged(json!({"Phone": "phoneNumber", "Description": "bio"}));
    assert_eq!(
        fields(&mapping, "Contact", "contact")["bio"],
        json!("Description")
    );
    assert_eq!(
        fields(&mapping, "Contact", "contact")["phoneNumber"],
        json!("Phone")
    );
    // A company has no `bio`: there the field stays where it was.
    assert_eq!(mapping.objects["Account"], connector().objects["Account"]);
    assert_eq!(
        fields(&mapping, "Lead", "contact")["bio"],
        json!("Description")
    );
    let one = merged(json!({"Contact": {"Phone": "phoneNumber"}}));
    assert_eq!(one, connector());
}

#[test]
fn a_mapping_moves_the_field_and_replaces_the_former_rule() {
    let mapping = merged(json!({"MobilePhone": "phoneNumber"}));
    assert_eq!(
        fields(&mapping, "Contact", "contact"),
        json!({
            "lastName": "LastName",
            "phoneNumber": "MobilePhone",
            "companyId": {"from": "AccountId", "reference": "Account#company", "required": true},
            "managerId": {"from": "ReportsToId", "reference": "Contact#contact"},
        })
    );
}

#[test]
fn fields_can_change_places() {
    let mapping =
        merged(json!({"Contact": {"MobilePhone": "phoneNumber", "Phone": "mobileNumber"}}));
    let contact = fields(&mapping, "Contact", "contact");
    assert_eq!(contact["phoneNumber"], json!("MobilePhone"));
    assert_eq!(contact["mobileNumber"], json!("Phone"));
}

#[test]
fn an_objects_own_mapping_wins_over_the_flat_one() {
    let mapping = merged(json!({"Phone": "phoneNumber", "Contact": {"Phone": "mobileNumber"}}));
    let contact = fields(&mapping, "Contact", "contact");
    assert_eq!(contact["mobileNumber"], json!("Phone"));
    assert!(contact.get("phoneNumber").is_none());
    assert_eq!(
        fields(&mapping, "Account", "company")["phoneNumber"],
        json!("Phone")
    );
}

#[test]
fn the_slot_that_reads_the_field_is_meant() {
    // Both entities have a phone number; only the contact reads the field.
    let mapping = merged(json!({"Lead": {"Phone": "phoneNumber"}}));
    assert_eq!(mapping, connector());
    // No slot reads it: then all that have the canonical field.
    let mapping = merged(json!({"Lead": {"Description": "phoneNumber"}}));
    assert_eq!(
        fields(&mapping, "Lead", "contact")["phoneNumber"],
        json!("Description")
    );
    assert_eq!(
        fields(&mapping, "Lead", "company")["phoneNumber"],
        json!("Description")
    );
}

#[test]
fn a_reference_keeps_what_it_points_to() {
    let mapping = merged(json!({"Employer__c": "companyId"}));
    assert_eq!(
        fields(&mapping, "Contact", "contact")["companyId"],
        json!({"from": "Employer__c", "reference": "Account#company", "required": true})
    );
    let told = told(json!({"Lead": {"Phone": "companyId"}, "ReportsToId": "companyId"}));
    assert_eq!(
        told,
        [
            "mappings.ReportsToId: Contact.ReportsToId points to Contact, and contact.companyId takes \
             references to Account; map a field that points to Account, or leave ReportsToId to `custom`",
            "mappings.Lead.Phone: Lead.Phone is declared as string, which promises no such form, and \
             contact.companyId is a reference; map a field that the source declares as a reference, \
             or leave Phone to `custom`",
            "mappings.Lead.Phone: contact.companyId is a reference, and it isn't known to which object; \
             leave it to the connector's mapping",
        ]
    );
}

#[test]
fn a_custom_object_gets_rules_of_its_own() {
    let mapping = merged(json!({"Title__c": "name"}));
    assert_eq!(
        fields(&mapping, "Invoice__c", "record"),
        json!({
            "type": {"constant": "$object"},
            "name": "Title__c",
        })
    );
    assert!(!mapping.objects.contains_key("Nameless__c"));
}

#[test]
fn names_that_nobody_knows() {
    assert_eq!(
        told(json!({"Fone": "phoneNumber", "Phone": "phonenumber", "Contct": {"Phone": "bio"}})),
        [
            "mappings.Contct: `Contct` is no object of this migration; did you mean `Contact`?",
            "mappings.Fone: no object of this migration shows a field `Fone`; correct the name, or remove it",
            "mappings.Phone: no entity of this migration has a field `phonenumber`; did you mean `phoneNumber`?",
        ]
    );
    assert_eq!(
        told(json!({"Phone": {"to": "phoneNumber"}})),
        [
            "mappings.Phone: `Phone` is no object of this migration; a rule stands under the object \
             it is for: `OBJECT: { Phone: phoneNumber }`",
        ]
    );
    assert_eq!(
        told(json!({"Contact": {"Phon": "phoneNumbr"}})),
        [
            "mappings.Contact.Phon: Contact shows no field `Phon`; did you mean `Phone`?",
            "mappings.Contact.Phon: contact has no field `phoneNumbr`; did you mean `phoneNumber`?",
        ]
    );
    // The canonical field first: where the other way round works, it is what is meant.
    assert_eq!(
        told(json!({"phoneNumber": "Phone", "Contact": {"mobileNumber": "MobilePhone"}})),
        [
            "mappings.Contact.mobileNumber: Contact has no field `mobileNumber`; reversed? \
             the source's field comes first: write `MobilePhone: mobileNumber`",
            "mappings.phoneNumber: no object of this migration shows a field `phoneNumber`; reversed? \
             the source's field comes first: write `Phone: phoneNumber`",
        ]
    );
    assert_eq!(
        told(json!({"website": "AccountId"})).len(),
        2,
        "no contact has a website, so nothing is reversed"
    );
    // An object that the connector knows, and this migration leaves out.
    let mut few = objects();
    few.retain(|object| object.name != "Lead");
    let lead = mappings(&json!({"Lead": {"Phone": "phoneNumber"}}));
    let (_, problems) = merge_all(&connector(), &lead, &few);
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "mappings.Lead: `Lead` is no object of this migration; add it to `objects`, where the file \
             has that list, or remove its mapping"
        ]
    );
    assert_eq!(
        told(json!({"AccountId": "website"})),
        [
            "mappings.AccountId: the objects with a field `AccountId` (Contact) give no entity with a field `website`; \
          correct the name, or remove it"
        ]
    );
    assert_eq!(
        told(json!({"Lead": {"Phone": "stage"}})),
        [
            "mappings.Lead.Phone: company or contact has no field `stage`; correct the name, or remove it"
        ]
    );
}

#[test]
fn two_mappings_to_one_field() {
    let conflict = "mappings.Phone: `mappings.MobilePhone` and `mappings.Phone` both fill `phoneNumber`; \
                    keep one of them, or map the other one elsewhere";
    assert_eq!(
        told(json!({"Phone": "phoneNumber", "MobilePhone": "phoneNumber"})),
        [conflict]
    );
    assert_eq!(
        problems(json!({"Phone": "phoneNumber", "Contact": {"MobilePhone": "phoneNumber"}}))[0]
            .message,
        "`mappings.Contact.MobilePhone` and `mappings.Phone` both fill `phoneNumber`"
    );
}

#[test]
fn a_type_that_never_fits() {
    assert_eq!(
        told(json!({"Contact": {"Description": "birthDate"}})),
        [
            "mappings.Contact.Description: Contact.Description is declared as string, which promises no \
             such form, and contact.birthDate is a date; map a field that the source declares as a date, \
             or leave Description to `custom`"
        ]
    );
    assert_eq!(
        told(json!({"Contact": {"AccountId": "ownerType", "DoNotCall": "email"}})),
        [
            "mappings.Contact.AccountId: Contact.AccountId is declared as reference, and \
             contact.ownerType is the name of the entity that ownerId points to, which Drover fills in; \
             map it to another field, or leave it to `custom`",
            "mappings.Contact.DoNotCall: Contact.DoNotCall is declared as boolean, and contact.email is \
             an e-mail address; map it to another field, or leave it to `custom`",
        ]
    );
    // No value that the source lists is a number, or true or false.
    let none = |field: &str, canonical: &str, due: &str| {
        format!(
            "mappings.Account.{field}: none of the values that the source lists for Account.{field} \
             (`Hot`, …) fits company.{canonical}, which is {due}; say by `values` what stands for them, \
             map another field, or leave {field} to `custom`"
        )
    };
    let rating = |canonical: &str| {
        let mut objects = objects();
        let account = objects
            .iter_mut()
            .find(|one| one.name == "Account")
            .expect("Account");
        for (name, values) in [("Rating", ["Hot", "Cold"]), ("Size__c", ["10", "Many"])] {
            account.fields.push(SourceField {
                name: name.to_owned(),
                kind: "picklist".to_owned(),
                values: values.map(str::to_owned).into(),
                ..SourceField::default()
            });
        }
        let rules = json!({"Account": {"Rating": canonical, "Size__c": "website"}});
        let (_, problems) = merge_all(&connector(), &mappings(&rules), &objects);
        let rules = json!({"Account": {"Size__c": canonical}});
        let (_, some) = merge_all(&connector(), &mappings(&rules), &objects);
        assert!(
            canonical == "person" || some.is_empty(),
            "one is a number: {some:?}"
        );
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        rating("annualRevenue"),
        [none("Rating", "annualRevenue", "a decimal number")]
    );
    assert_eq!(
        rating("employees"),
        [none("Rating", "employees", "a whole number")]
    );
    assert_eq!(
        rating("person"),
        [none("Rating", "person", "true or false")]
    );
    assert!(rating("phoneNumber").is_empty());
    // A number may stand in a text, and an address as well.
    merged(
        json!({"Account": {"Description": "annualRevenue"}, "Contact": {"Description": "email"}}),
    );
    assert_eq!(
        told(json!({"DoNotCall": "birthDate"})),
        [
            "mappings.DoNotCall: Contact.DoNotCall is declared as boolean, and contact.birthDate is a date; \
          map it to another field, or leave it to `custom`"
        ]
    );
}

#[test]
fn a_required_field_is_not_left_empty() {
    assert_eq!(
        told(json!({"LastName": "bio"})),
        [
            "mappings.LastName: takes LastName away from contact.lastName, which must be filled; \
          map another source field to lastName"
        ]
    );
    merged(json!({"Contact": {"LastName": "bio", "MobilePhone": "lastName"}}));
}

#[test]
fn without_descriptions_the_connectors_mapping_tells_what_is_there() {
    let merged = |json: Json| merge(&connector(), &mappings(&json), &[]);
    let mapping = merged(json!({"MobilePhone": "phoneNumber"})).expect("known by its rule");
    assert_eq!(
        fields(&mapping, "Contact", "contact")["phoneNumber"],
        json!("MobilePhone")
    );
    // The source may show more than the connector's mapping names.
    assert!(merged(json!({"Nothing": "phoneNumber"})).is_ok());
    assert!(merged(json!({"Invoice__c": {"Title__c": "name"}})).is_ok());
    assert!(merged(json!({"Nothing": "phoneNumbr"})).is_err());
    // What its own rule makes of a field tells what it holds.
    let problems = merged(json!({"Phone": "birthDate", "LastName": "companyId"}));
    let told: Vec<String> = problems
        .expect_err("never fit")
        .iter()
        .map(|problem| problem.message.clone())
        .collect();
    assert_eq!(
        told[..2],
        [
            "Contact.LastName is declared as text, which promises no such form, and \
             contact.companyId is a reference",
            "Contact.Phone is declared as text, which promises no such form, and \
             contact.birthDate is a date",
        ]
    );
    // Of an object's own mapping the operator knows better.
    assert!(merged(json!({"Contact": {"Home__c": "phoneNumber"}})).is_ok());
}

#[test]
fn an_objects_mapping_can_say_what_is_done_to_a_value() {
    let text = r#"{"id": "m", "tenantId": "t", "sourceType": "s", "mappings": {"Contact": {
        "Description": {"to": "department", "values": {"CEO": "board", "-": null}, "default": "none"},
        "$where": {"LastName": {"not": "Test"}}
    }}}"#;
    let read = |text: &str| {
        let document = crate::config::Document::parse("m.json", text.as_bytes())?;
        let part = crate::config::Part::Skip;
        document.migration(&document.environment(), part, part)
    };
    let config = read(text).expect("a configuration");
    let merged = merge(&connector(), &config.mappings, &objects()).expect("a mapping");
    let slot = merged.objects["Contact"]
        .slots
        .values()
        .next()
        .expect("a slot");
    assert_eq!(slot.filter["LastName"], serde_json::json!({"not": "Test"}));
    let rule = slot.fields["department"].long();
    assert_eq!(rule.from.as_deref(), Some("Description"));
    assert_eq!(rule.values["CEO"].as_deref(), Some("board"));
    assert_eq!(
        (&rule.values["-"], rule.default.as_deref()),
        (&None, Some("none"))
    );

    let bad = text
        .replace("\"to\"", "\"too\"")
        .replace("{\"not\"", "[{\"not\"");
    let bad = bad
        .replace("\"Test\"}}", "\"Test\"}]}")
        .replace("\"default\"", "\"as\"");
    let problems = read(&bad).expect_err("problems");
    let places: Vec<_> = problems.iter().map(|p| (p.path.as_str(), p.line)).collect();
    for path in [
        "mappings.Contact.Description.too",
        "mappings.Contact.Description.as",
    ] {
        assert!(places.contains(&(path, 2)), "{problems:#?}");
    }
}

#[test]
fn a_reference_to_what_is_not_migrated_is_left_out() {
    let some: Vec<Object> = objects()
        .into_iter()
        .filter(|object| object.name == "Contact")
        .collect();
    let merged = merge(&connector(), &Mappings::default(), &some).expect("a mapping");
    for slot in merged.objects["Contact"].slots.values() {
        for (field, rule) in &slot.fields {
            let long = rule.long();
            let to = long.points_to().map(|(object, _)| object.to_owned());
            assert!(to.is_none_or(|to| to == "Contact"), "{field}");
        }
    }
}

#[test]
fn a_slot_that_goes_is_kept_as_a_retired_one() {
    let before = connector();
    let mut after = before.clone();
    let slots = &mut after.objects.get_mut("Contact").expect("it").slots;
    let (name, slot) = slots.pop_first().expect("a slot");
    after.retire(&before, &objects()).expect("kept");
    let kept = &after.objects["Contact"].slots[&name];
    assert!(kept.retired && kept.entity == slot.entity);
    let changed = &mut after.objects.get_mut("Contact").expect("it").slots;
    changed.get_mut(&name).expect("it").entity = "lead".into();
    let refused = after.retire(&before, &objects());
    assert_eq!(refused, Err(vec![format!("Contact#{name}")]));
}
