//! Writes: what the org checks, fills in by itself and drags along.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::convert::{self, Strictness};
use super::derive;
use super::errors::ApiError;
use super::id::Id;
use super::moment::Millis;
use super::record::{Record, Values};
use super::schema::{Field, Lack, Mark, OnDelete, Source, Type};
use super::store::Store;

/// When a write happens, when it shows, and who does it.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// Its stamp, a whole second.
    pub stamp: Millis,
    /// From when queries see it.
    pub visible: Millis,
    /// The time now.
    pub now: Millis,
    /// The user.
    pub user: Id,
}

/// The record is in the recycle bin or gone.
fn deleted() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "ENTITY_IS_DELETED",
        "entity is deleted",
    )
    .on(&[])
}

fn unknown_column(name: &str, object: &str) -> ApiError {
    ApiError::bad(
        "INVALID_FIELD",
        format!("No such column '{name}' on sobject of type {object}"),
    )
}

/// Creates a record from its fields and gives its id.
pub fn create(
    store: &mut Store,
    object: usize,
    fields: &Map<String, Value>,
    how: Strictness,
    when: When,
) -> Result<Id, ApiError> {
    if !store.schema.objects[object].can(Lack::Create) && how == Strictness::Checked {
        let name = &store.schema.objects[object].name;
        return Err(ApiError::bad(
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
            format!("entity type cannot be inserted: {name}"),
        )
        .on(&[]));
    }
    let mut values = Values::new();
    set(store, object, &mut values, fields, how, Mark::Createable)?;
    derive::person_name(&store.schema.objects[object], &mut values);
    let described = &store.schema.objects[object];
    if how == Strictness::Checked {
        let missing: Vec<&str> = described
            .fields
            .iter()
            .enumerate()
            .filter(|(at, field)| field.is_required() && values.json(*at as u16).is_none())
            .map(|(_, field)| field.name.as_str())
            .collect();
        if !missing.is_empty() {
            return Err(ApiError::bad(
                "REQUIRED_FIELD_MISSING",
                format!("Required fields are missing: [{}]", missing.join(", ")),
            )
            .on(&missing));
        }
    }
    derive::defaults(store, object, &mut values, when);
    derive::dependents(store, object, &mut values, None, when.stamp);
    let prefix = store.schema.objects[object].prefix.clone();
    let id = loop {
        let id = Id::numbered(&prefix, store.table_mut(object).new_number());
        // Data may have brought this id.
        if store.truth(object, id).is_none() {
            break id;
        }
    };
    let record = Record {
        id,
        created: when.stamp,
        modified: when.stamp,
        modstamp: when.stamp,
        deleted: false,
        values: values.pack(),
    };
    store.put(object, id, Some(record), when.visible, when.now);
    store.table_mut(object).writes.creates += 1;
    Ok(id)
}

/// Sets fields of a record.
pub fn update(
    store: &mut Store,
    object: usize,
    id: Id,
    fields: &Map<String, Value>,
    how: Strictness,
    when: When,
) -> Result<(), ApiError> {
    let before = store.truth(object, id).ok_or_else(deleted)?.clone();
    if before.deleted && how == Strictness::Checked {
        return Err(deleted());
    }
    if how == Strictness::Checked && is_converted(store, object, &before) {
        return Err(ApiError::bad(
            "CANNOT_UPDATE_CONVERTED_LEAD",
            "cannot reference converted lead",
        )
        .on(&[]));
    }
    let mut values = Values::of(&before);
    set(store, object, &mut values, fields, how, Mark::Updateable)?;
    if how == Strictness::Checked {
        let described = &store.schema.objects[object];
        for (at, field) in described.fields.iter().enumerate() {
            let emptied = values.json(at as u16).is_none() && before.json(at as u16).is_some();
            if field.is_required() && emptied {
                return Err(ApiError::bad(
                    "REQUIRED_FIELD_MISSING",
                    format!("Required fields are missing: [{}]", field.name),
                )
                .on(&[&field.name]));
            }
        }
    }
    derive::modifier(store, object, &mut values, when.user);
    derive::dependents(store, object, &mut values, Some(&before), when.stamp);
    let record = Record {
        modified: when.stamp,
        modstamp: when.stamp,
        values: values.pack(),
        ..before
    };
    store.put(object, id, Some(record), when.visible, when.now);
    store.table_mut(object).writes.edits += 1;
    Ok(())
}

fn is_converted(store: &Store, object: usize, record: &Record) -> bool {
    store.schema.objects[object]
        .number("IsConverted")
        .is_some_and(|field| record.json(field) == Some("true"))
}

/// Puts a record into the recycle bin, and with it the children that can't
/// live without it.
pub fn delete(
    store: &mut Store,
    object: usize,
    id: Id,
    how: Strictness,
    when: When,
) -> Result<(), ApiError> {
    let record = store.truth(object, id).ok_or_else(deleted)?;
    if record.deleted {
        return Err(deleted());
    }
    let described = &store.schema.objects[object];
    if !described.can(Lack::Delete) && how == Strictness::Checked {
        return Err(ApiError::bad(
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
            format!("entity type {} does not support delete", described.name),
        )
        .on(&[]));
    }
    let name = described.name.clone();
    let mut cascade = Vec::new();
    for (child, field) in store.schema.references_to(&name) {
        let rule = store.schema.objects[child].fields[usize::from(field)].on_delete;
        if rule == OnDelete::Nothing {
            continue;
        }
        let found: Vec<Id> = store
            .truths(child)
            .filter(|record| !record.deleted && record.reference(field) == Some(id))
            .map(|record| record.id)
            .collect();
        if rule == OnDelete::Restrict && !found.is_empty() {
            if how == Strictness::Checked {
                return Err(restricted(store, object, id, child, &found));
            }
            continue;
        }
        cascade.extend(found.into_iter().map(|found| (child, found)));
    }
    bin(store, object, id, true, when);
    store.table_mut(object).writes.deletes += 1;
    for (child, id) in cascade {
        // A child may itself have been dragged along by another one.
        match delete(store, child, id, Strictness::Raw, when) {
            Ok(()) => {}
            Err(error) if error.code == "ENTITY_IS_DELETED" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn restricted(store: &Store, object: usize, id: Id, child: usize, found: &[Id]) -> ApiError {
    let named = |object: usize, id: Id| {
        let described = &store.schema.objects[object];
        described
            .name_field()
            .and_then(|field| described.number(&field.name))
            .and_then(|number| {
                store
                    .truth(object, id)?
                    .text(number)
                    .map(|text| text.into_owned())
            })
            .unwrap_or_else(|| id.to_string())
    };
    let names: Vec<String> = found.iter().take(10).map(|id| named(child, *id)).collect();
    ApiError::bad(
        "DELETE_FAILED",
        format!(
            "Your attempt to delete {} could not be completed because it is associated with the following {}.: {}\n",
            named(object, id),
            store.schema.objects[child].plural.to_lowercase(),
            names.join(", ")
        ),
    )
    .on(&[])
}

/// Takes a record out of the recycle bin.
pub fn undelete(store: &mut Store, object: usize, id: Id, when: When) -> Result<(), ApiError> {
    match store.truth(object, id) {
        Some(record) if record.deleted => {}
        _ => {
            return Err(
                ApiError::bad("UNDELETE_FAILED", "Entity is not in the recycle bin").on(&[]),
            );
        }
    }
    bin(store, object, id, false, when);
    store.table_mut(object).writes.edits += 1;
    Ok(())
}

fn bin(store: &mut Store, object: usize, id: Id, deleted: bool, when: When) {
    let Some(before) = store.truth(object, id) else {
        return;
    };
    let mut values = Values::of(before);
    let mut record = Record {
        deleted,
        modified: when.stamp,
        modstamp: when.stamp,
        ..before.clone()
    };
    derive::modifier(store, object, &mut values, when.user);
    record.values = values.pack();
    store.put(object, id, Some(record), when.visible, when.now);
}

/// Merges records into one: what referred to them refers to it, they go into
/// the bin and say which one they became.
pub fn merge(
    store: &mut Store,
    object: usize,
    winner: Id,
    losers: &[Id],
    when: When,
) -> Result<(), ApiError> {
    let name = store.schema.objects[object].name.clone();
    let master = store.schema.objects[object].number("MasterRecordId");
    store.truth(object, winner).ok_or_else(deleted)?;
    for loser in losers {
        store.truth(object, *loser).ok_or_else(deleted)?;
        for (child, field) in store.schema.references_to(&name) {
            if Some(field) == master && child == object {
                continue;
            }
            let found: Vec<Id> = store
                .truths(child)
                .filter(|record| record.reference(field) == Some(*loser))
                .map(|record| record.id)
                .collect();
            for id in found {
                changed(store, child, id, when, |values, _| {
                    values.set_text(field, &winner.to_string());
                });
            }
        }
        changed(store, object, *loser, when, |values, deleted| {
            *deleted = true;
            if let Some(master) = master {
                values.set_text(master, &winner.to_string());
            }
        });
        store.table_mut(object).writes.deletes += 1;
    }
    changed(store, object, winner, when, |_, _| {});
    store.table_mut(object).writes.edits += 1;
    Ok(())
}

/// Changes values of a record, and whether it is in the bin.
fn changed(
    store: &mut Store,
    object: usize,
    id: Id,
    when: When,
    change: impl FnOnce(&mut Values, &mut bool),
) {
    let Some(before) = store.truth(object, id).cloned() else {
        return;
    };
    let mut values = Values::of(&before);
    let mut deleted = before.deleted;
    change(&mut values, &mut deleted);
    derive::modifier(store, object, &mut values, when.user);
    let record = Record {
        deleted,
        modified: when.stamp,
        modstamp: when.stamp,
        values: values.pack(),
        ..before
    };
    store.put(object, id, Some(record), when.visible, when.now);
}

/// Removes a record for good.
pub fn hard_delete(store: &mut Store, object: usize, id: Id, when: When) -> Result<(), ApiError> {
    let before = store.truth(object, id).ok_or_else(deleted)?;
    let counted = !before.deleted;
    store.put(object, id, None, when.visible, when.now);
    if counted {
        store.table_mut(object).writes.deletes += 1;
    }
    Ok(())
}

/// Sets values from a request's fields.
fn set(
    store: &Store,
    object: usize,
    values: &mut Values,
    fields: &Map<String, Value>,
    how: Strictness,
    allowed: Mark,
) -> Result<(), ApiError> {
    let described = &store.schema.objects[object];
    for (name, value) in fields {
        if name == "attributes" {
            continue;
        }
        let Some(number) = described.number(name) else {
            return Err(unknown_column(name, &described.name));
        };
        let field = &described.fields[usize::from(number)];
        if matches!(field.source, Source::Id) && how == Strictness::Raw {
            continue;
        }
        if !matches!(field.source, Source::Stored | Source::Blob)
            || (how == Strictness::Checked && !field.has(allowed))
        {
            return Err(ApiError::bad(
                "INVALID_FIELD_FOR_INSERT_UPDATE",
                format!(
                    "Unable to create/update fields: {}. Please check the security settings of this field and verify \
                     that it is read/write for your profile or permission set.",
                    field.name
                ),
            )
            .on(&[&field.name]));
        }
        let json = convert::json(field, value, how)?;
        if how == Strictness::Checked && field.kind == Type::Reference {
            check_reference(store, field, &json)?;
        }
        values.set_json(number, json);
    }
    Ok(())
}

/// Whether a reference points to a record of the right object.
fn check_reference(store: &Store, field: &Field, json: &str) -> Result<(), ApiError> {
    let Some(id) = Id::parse(json.trim_matches('"')) else {
        return Ok(());
    };
    let target = store.schema.by_prefix(id.prefix());
    let right = target.is_some_and(|target| {
        field
            .references
            .contains(&store.schema.objects[target].name)
    });
    if !right && !field.references.is_empty() {
        return Err(ApiError::bad(
            "FIELD_INTEGRITY_EXCEPTION",
            format!("{}: id value of incorrect type: {id}", field.label),
        )
        .on(&[&field.name]));
    }
    let alive = target.is_none_or(|target| {
        store
            .truth(target, id)
            .is_some_and(|record| !record.deleted)
    });
    // The user who writes need not be among the records.
    if !alive && target.is_some_and(|target| store.schema.objects[target].name != "User") {
        return Err(
            ApiError::bad("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id").on(&[]),
        );
    }
    Ok(())
}
