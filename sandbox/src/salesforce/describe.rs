//! What the org says of its objects: the global describe and each object's.

use serde_json::{Map, Value, json};

use super::schema::{Field, Mark, Object, OnDelete, Schema, Type};

/// The answer to `/sobjects`.
pub fn global(schema: &Schema, base: &str) -> Value {
    let objects: Vec<Value> = schema
        .objects
        .iter()
        .map(|object| entry(object, base))
        .collect();
    json!({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": objects})
}

/// An object's entry in the global describe.
pub fn entry(object: &Object, base: &str) -> Value {
    let standard = !object.is_custom();
    json!({
        "activateable": false,
        "associateEntityType": null,
        "associateParentEntity": null,
        "createable": true,
        "custom": object.is_custom(),
        "customSetting": false,
        "deepCloneable": object.deep_cloneable,
        "deletable": object.deletable,
        "deprecatedAndHidden": false,
        "feedEnabled": standard,
        "hasSubtypes": false,
        "isInterface": false,
        "isSubtype": false,
        "keyPrefix": object.prefix,
        "label": object.label,
        "labelPlural": object.plural,
        "layoutable": true,
        "mergeable": object.mergeable,
        "mruEnabled": true,
        "name": object.name,
        "queryable": true,
        "replicateable": true,
        "retrieveable": true,
        "searchable": true,
        "triggerable": true,
        "undeletable": object.deletable && object.has_bin(),
        "updateable": true,
        "urls": urls(object, base, None),
    })
}

/// The answer to `/sobjects/X/describe`; `origin` is the host's URL.
pub fn object(schema: &Schema, number: usize, base: &str, origin: &str) -> Value {
    let object = &schema.objects[number];
    let scopes: Vec<Value> = object
        .scopes
        .iter()
        .map(|(name, label)| json!({"label": label, "name": name}))
        .collect();
    json!({
        "actionOverrides": [],
        "activateable": false,
        "associateEntityType": null,
        "associateParentEntity": null,
        "childRelationships": children(schema, object),
        "compactLayoutable": true,
        "createable": true,
        "custom": object.is_custom(),
        "customSetting": false,
        "deepCloneable": object.deep_cloneable,
        "defaultImplementation": null,
        "deletable": object.deletable,
        "deprecatedAndHidden": false,
        "extendedBy": null,
        "extendsInterfaces": null,
        "feedEnabled": !object.is_custom(),
        "fields": object.fields.iter().map(field).collect::<Vec<_>>(),
        "hasSubtypes": false,
        "implementedBy": null,
        "implementsInterfaces": null,
        "isInterface": false,
        "isSubtype": false,
        "keyPrefix": object.prefix,
        "label": object.label,
        "labelPlural": object.plural,
        "layoutable": true,
        "listviewable": null,
        "lookupLayoutable": null,
        "mergeable": object.mergeable,
        "mruEnabled": true,
        "name": object.name,
        "namedLayoutInfos": [],
        "networkScopeFieldName": null,
        "queryable": true,
        "recordTypeInfos": [{
            "active": true,
            "available": true,
            "defaultRecordTypeMapping": true,
            "developerName": "Master",
            "master": true,
            "name": "Master",
            "recordTypeId": "012000000000000AAA",
            "urls": {"layout": format!("{base}/sobjects/{}/describe/layouts/012000000000000AAA", object.name)},
        }],
        "replicateable": true,
        "retrieveable": true,
        "searchLayoutable": true,
        "searchable": true,
        "sobjectDescribeOption": "FULL",
        "supportedScopes": scopes,
        "triggerable": true,
        "undeletable": object.deletable && object.has_bin(),
        "updateable": true,
        "urls": urls(object, base, Some(origin)),
    })
}

fn urls(object: &Object, base: &str, origin: Option<&str>) -> Value {
    let own = format!("{base}/sobjects/{}", object.name);
    let mut urls = Map::new();
    let mut put = |name: &str, url: String| urls.insert(name.to_owned(), Value::from(url));
    put("compactLayouts", format!("{own}/describe/compactLayouts"));
    put("rowTemplate", format!("{own}/{{ID}}"));
    put("approvalLayouts", format!("{own}/describe/approvalLayouts"));
    if let Some(origin) = origin {
        put("uiDetailTemplate", format!("{origin}/{{ID}}"));
        put("uiEditTemplate", format!("{origin}/{{ID}}/e"));
    }
    put("listviews", format!("{own}/listviews"));
    put("describe", format!("{own}/describe"));
    if let Some(origin) = origin {
        put("uiNewRecord", format!("{origin}/{}/e", object.prefix));
    }
    put("quickActions", format!("{own}/quickActions"));
    put("layouts", format!("{own}/describe/layouts"));
    put("sobject", own);
    Value::Object(urls)
}

fn children(schema: &Schema, object: &Object) -> Vec<Value> {
    schema
        .references_to(&object.name)
        .into_iter()
        .map(|(number, at)| {
            let child = &schema.objects[number];
            let field = &child.fields[usize::from(at)];
            json!({
                "cascadeDelete": field.on_delete == OnDelete::Cascade,
                "childSObject": child.name,
                "deprecatedAndHidden": false,
                "field": field.name,
                "junctionIdListNames": [],
                "junctionReferenceTo": [],
                "relationshipName": field.children,
                "restrictedDelete": field.on_delete == OnDelete::Restrict,
            })
        })
        .collect()
}

/// A field's describe: all keys, nulls included.
pub fn field(field: &Field) -> Value {
    let long = field.is_long_text();
    let plain = !long && field.kind != Type::Address && field.kind != Type::Multipicklist;
    let picklist: Vec<Value> = field
        .picklist
        .iter()
        .map(|value| {
            json!({
                "active": true,
                "defaultValue": field.default.as_deref() == Some(value),
                "label": value,
                "validFor": null,
                "value": value,
            })
        })
        .collect();
    json!({
        "aggregatable": plain && field.kind != Type::Boolean,
        "aiPredictionField": false,
        "autoNumber": field.has(Mark::AutoNumber),
        "byteLength": match field.kind {
            Type::Id | Type::Reference => field.length,
            _ => field.length * 3,
        },
        "calculated": false,
        "calculatedFormula": null,
        "cascadeDelete": false,
        "caseSensitive": false,
        "compoundFieldName": field.compound,
        "controllerName": null,
        "createable": field.has(Mark::Createable),
        "custom": field.is_custom(),
        "defaultValue": match field.kind {
            Type::Boolean => Value::from(false),
            _ => Value::from(field.default.clone()),
        },
        "defaultValueFormula": null,
        "defaultedOnCreate": field.has(Mark::Defaulted),
        "dependentPicklist": false,
        "deprecatedAndHidden": false,
        "digits": if field.kind == Type::Int { field.precision } else { 0 },
        "displayLocationInDecimal": false,
        "encrypted": false,
        "externalId": false,
        "extraTypeInfo": extra_type(field),
        "filterable": field.is_filterable(),
        "filteredLookupInfo": null,
        "formulaTreatNullNumberAsZero": false,
        "groupable": plain && !field.kind.is_double() && field.kind != Type::Datetime && !field.has(Mark::AutoNumber),
        "highScaleNumber": false,
        "htmlFormatted": false,
        "idLookup": field.has(Mark::IdLookup),
        "inlineHelpText": null,
        "label": field.label,
        "length": field.length,
        "mask": null,
        "maskType": null,
        "name": field.name,
        "nameField": field.has(Mark::NameField),
        "namePointing": field.is_polymorphic(),
        "nillable": field.has(Mark::Nillable),
        "permissionable": field.has(Mark::Permissionable),
        "picklistValues": picklist,
        "polymorphicForeignKey": field.is_polymorphic(),
        "precision": if field.kind == Type::Int { 0 } else { field.precision },
        "queryByDistance": false,
        "referenceTargetField": null,
        "referenceTo": field.references,
        "relationshipName": field.relationship,
        "relationshipOrder": null,
        "restrictedDelete": false,
        "restrictedPicklist": field.has(Mark::Restricted),
        "scale": field.scale,
        "searchPrefilterable": field.kind == Type::Reference && field.has(Mark::Nillable),
        "soapType": soap_type(field.kind),
        "sortable": field.is_sortable(),
        "type": field.kind.name(),
        "unique": false,
        "updateable": field.has(Mark::Updateable),
        "writeRequiresMasterRead": false,
    })
}

fn extra_type(field: &Field) -> Option<&'static str> {
    if field.has(Mark::PersonName) {
        Some("personname")
    } else if field.has(Mark::SwitchableName) {
        Some("switchablepersonname")
    } else if field.has(Mark::Image) {
        Some("imageurl")
    } else if field.kind == Type::Textarea {
        Some("plaintextarea")
    } else {
        None
    }
}

fn soap_type(kind: Type) -> &'static str {
    match kind {
        Type::Id | Type::Reference => "tns:ID",
        Type::Boolean => "xsd:boolean",
        Type::Int => "xsd:int",
        Type::Double | Type::Currency | Type::Percent => "xsd:double",
        Type::Date => "xsd:date",
        Type::Datetime => "xsd:dateTime",
        Type::Address => "urn:address",
        _ => "xsd:string",
    }
}
