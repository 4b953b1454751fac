//! What an administrator does to the org's objects while somebody reads them
//! (`POST /_sandbox/describe`): hides an object or a field from the user, shows
//! it again, adds a field, gives one another type.

use serde_json::{Value, json};

use super::field;
use super::schema::Object;
use super::store::Store;

/// The keys of a request.
const KNOWN: [&str; 5] = ["object", "field", "hidden", "add", "type"];

/// Does what a request asks for.
///
/// `{"object": "Contact", "field": "Email", "hidden": true}` hides a field,
/// without `field` the object; `"hidden": false` shows it again.
/// `{"object": "Contact", "add": {"name": "Level__c", "type": "string"}}` adds a
/// field, as a describe would tell of it. `{"object": "Contact", "field":
/// "Level__c", "type": "double"}` makes it another type.
pub fn change(store: &mut Store, request: &Value) -> Result<Value, String> {
    let fields = request.as_object().ok_or("the request is not an object")?;
    if let Some(unknown) = fields.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(format!(
            "unknown key `{unknown}`; known are {}",
            KNOWN.join(", ")
        ));
    }
    let name = request["object"].as_str().ok_or("`object` is missing")?;
    let number = store
        .schema
        .number(name)
        .ok_or_else(|| format!("no object `{name}`"))?;
    let object = &mut store.schema.objects[number];
    if let Some(added) = fields.get("add") {
        let field = field::described(added).ok_or("`add` is no describe of a field")?;
        if object.number(&field.name).is_some() {
            return Err(format!("there is a field `{}`", field.name));
        }
        object.add(field);
    } else if let Some(field) = request["field"].as_str() {
        let at = object
            .number(field)
            .ok_or_else(|| format!("no field `{field}`"))?;
        match (&request["hidden"], &request["type"]) {
            (Value::Bool(hidden), Value::Null) => object.hide_field(at, *hidden),
            (Value::Null, Value::String(kind)) => {
                let name = object.fields[usize::from(at)].name.clone();
                let described = json!({"name": name, "type": kind});
                let other = field::described(&described).ok_or("`type` is no type")?;
                object.fields[usize::from(at)].kind = other.kind;
            }
            _ => return Err("one of `hidden` and `type` is needed".to_owned()),
        }
    } else {
        let hidden = request["hidden"].as_bool();
        object.hidden = hidden.ok_or("`hidden` is not true or false")?;
    }
    Ok(json!({"object": object.name}))
}

/// A recorded describe of an object without the fields that are hidden.
pub fn without_hidden(text: &str, object: &Object) -> String {
    if !object.hides_fields() {
        return text.to_owned();
    }
    let Ok(mut value) = serde_json::from_str::<Value>(text) else {
        return text.to_owned();
    };
    if let Some(fields) = value["fields"].as_array_mut() {
        fields.retain(|field| {
            let name = field["name"].as_str().unwrap_or_default();
            object
                .number(name)
                .is_none_or(|number| object.shows(number))
        });
    }
    value.to_string()
}

/// A recorded global describe without the objects that are hidden.
pub fn without_hidden_objects(text: &str, objects: &[Object]) -> String {
    if objects.iter().all(|object| !object.hidden) {
        return text.to_owned();
    }
    let Ok(mut value) = serde_json::from_str::<Value>(text) else {
        return text.to_owned();
    };
    if let Some(entries) = value["sobjects"].as_array_mut() {
        entries.retain(|entry| {
            let name = entry["name"].as_str().unwrap_or_default();
            !objects
                .iter()
                .any(|object| object.hidden && object.name == name)
        });
    }
    value.to_string()
}
