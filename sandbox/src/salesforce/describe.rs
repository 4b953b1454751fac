//! What the org says of its objects: the global describe and each object's.

use serde_json::{Map, Value, json};

use super::schema::{Field, Lack, Mark, Object, OnDelete, Schema, Type};
use super::store::Store;

/// The answer to `/sobjects`.
pub fn global(schema: &Schema, base: &str) -> Value {
    let objects: Vec<Value> = schema
        .objects
        .iter()
        .filter(|object| !object.hidden)
        .map(|object| entry(object, base))
        .collect();
    json!({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": objects})
}

/// An object's entry in the global describe.
pub fn entry(object: &Object, base: &str) -> Value {
    json!({
        "activateable": false,
        "associateEntityType": object.belongs.as_ref().map(|it| &it.0),
        "associateParentEntity": object.belongs.as_ref().map(|it| &it.1),
        "createable": object.can(Lack::Create),
        "custom": object.is_custom(),
        "customSetting": false,
        "deepCloneable": object.deep_cloneable,
        "deletable": object.can(Lack::Delete),
        "deprecatedAndHidden": false,
        "feedEnabled": !object.is_custom() && object.can(Lack::Feed),
        "hasSubtypes": false,
        "isInterface": false,
        "isSubtype": false,
        "keyPrefix": object.can(Lack::Prefix).then_some(&object.prefix),
        "label": object.label,
        "labelPlural": object.plural,
        "layoutable": object.can(Lack::Layout),
        "mergeable": object.mergeable,
        "mruEnabled": object.can(Lack::Recent),
        "name": object.name,
        "queryable": true,
        "replicateable": object.can(Lack::Replicate),
        "retrieveable": true,
        "searchable": object.can(Lack::Search),
        "triggerable": object.can(Lack::Trigger),
        "undeletable": object.can(Lack::Undelete) && object.has_bin(),
        "updateable": object.can(Lack::Update),
        "urls": urls(object, base, None),
    })
}

/// The answer to `/sobjects/X/describe`; `origin` is the host's URL.
pub fn object(store: &Store, number: usize, base: &str, origin: &str) -> Value {
    let schema = &store.schema;
    let object = &schema.objects[number];
    let scopes: Vec<Value> = object
        .scopes
        .iter()
        .map(|(name, label)| json!({"label": label, "name": name}))
        .collect();
    json!({
        "actionOverrides": [],
        "activateable": false,
        "associateEntityType": object.belongs.as_ref().map(|it| &it.0),
        "associateParentEntity": object.belongs.as_ref().map(|it| &it.1),
        "childRelationships": children(schema, object),
        "compactLayoutable": object.can(Lack::Layout),
        "createable": object.can(Lack::Create),
        "custom": object.is_custom(),
        "customSetting": false,
        "deepCloneable": object.deep_cloneable,
        "defaultImplementation": null,
        "deletable": object.can(Lack::Delete),
        "deprecatedAndHidden": false,
        "extendedBy": null,
        "extendsInterfaces": null,
        "feedEnabled": !object.is_custom() && object.can(Lack::Feed),
        "fields": object.shown_fields().map(field).collect::<Vec<_>>(),
        "hasSubtypes": false,
        "implementedBy": null,
        "implementsInterfaces": null,
        "isInterface": false,
        "isSubtype": false,
        "keyPrefix": object.can(Lack::Prefix).then_some(&object.prefix),
        "label": object.label,
        "labelPlural": object.plural,
        "layoutable": object.can(Lack::Layout),
        "listviewable": null,
        "lookupLayoutable": null,
        "mergeable": object.mergeable,
        "mruEnabled": object.can(Lack::Recent),
        "name": object.name,
        "namedLayoutInfos": [],
        "networkScopeFieldName": null,
        "queryable": true,
        "recordTypeInfos": record_types(store, object, base),
        "replicateable": object.can(Lack::Replicate),
        "retrieveable": true,
        "searchLayoutable": object.can(Lack::Layout),
        "searchable": object.can(Lack::Search),
        "sobjectDescribeOption": "FULL",
        "supportedScopes": scopes,
        "triggerable": object.can(Lack::Trigger),
        "undeletable": object.can(Lack::Undelete) && object.has_bin(),
        "updateable": object.can(Lack::Update),
        "urls": urls(object, base, Some(origin)),
    })
}

/// The record types of an object; the last one is what records without any
/// count as.
fn record_types(store: &Store, object: &Object, base: &str) -> Vec<Value> {
    let info = |id: &str, name: &str, developer: &str, active: bool, default: bool| {
        let master = developer == "Master";
        let url = format!("{base}/sobjects/{}/describe/layouts/{id}", object.name);
        json!({
            "active": active,
            "available": true,
            "defaultRecordTypeMapping": default,
            "developerName": developer,
            "master": master,
            "name": name,
            "recordTypeId": id,
            "urls": {"layout": url},
        })
    };
    let mut infos = Vec::new();
    if let (Some(types), true) = (
        store.schema.number("RecordType"),
        object.field("RecordTypeId").is_some(),
    ) {
        let described = &store.schema.objects[types];
        for record in store
            .table(types)
            .rows()
            .values()
            .filter(|row| !row.deleted)
        {
            let text = |name: &str| {
                let number = described.number(name)?;
                record.text(number).map(|text| text.into_owned())
            };
            if text("SobjectType").as_deref() != Some(&object.name) {
                continue;
            }
            let active =
                described.number("IsActive").and_then(|it| record.json(it)) == Some("true");
            infos.push(info(
                &record.id.to_string(),
                &text("Name").unwrap_or_default(),
                &text("DeveloperName").unwrap_or_default(),
                active,
                infos.is_empty(),
            ));
        }
    }
    infos.push(info(
        "012000000000000AAA",
        "Master",
        "Master",
        true,
        infos.is_empty(),
    ));
    infos
}

/// Addresses that only one object has: its name, the address's and the one
/// it stands before.
const OWN_URLS: [(&str, &str, &str, &str); 5] = [
    (
        "Case",
        "caseArticleSuggestions",
        "/suggestedArticles",
        "listviews",
    ),
    (
        "Case",
        "caseRowArticleSuggestions",
        "/{ID}/suggestedArticles",
        "listviews",
    ),
    (
        "Event",
        "eventSeriesUpdates",
        "/{ID}/fromThisEventOnwards",
        "describe",
    ),
    (
        "User",
        "namedLayouts",
        "/describe/namedLayouts/{LayoutName}",
        "describe",
    ),
    ("User", "passwordUtilities", "/{ID}/password", "describe"),
];

fn urls(object: &Object, base: &str, origin: Option<&str>) -> Value {
    let own = format!("{base}/sobjects/{}", object.name);
    let laid_out = object.can(Lack::Layout);
    let has = |what: Lack| laid_out && object.can(what);
    let mut urls = Map::new();
    let mut put = |there: bool, name: &str, url: String| {
        for (_, special, path, _) in OWN_URLS
            .iter()
            .filter(|it| it.0 == object.name && it.3 == name)
        {
            urls.insert((*special).to_owned(), Value::from(format!("{own}{path}")));
        }
        if there {
            urls.insert(name.to_owned(), Value::from(url));
        }
    };
    put(
        has(Lack::Compact),
        "compactLayouts",
        format!("{own}/describe/compactLayouts"),
    );
    put(true, "rowTemplate", format!("{own}/{{ID}}"));
    put(
        has(Lack::Approval),
        "approvalLayouts",
        format!("{own}/describe/approvalLayouts"),
    );
    if let Some(origin) = origin {
        put(laid_out, "uiDetailTemplate", format!("{origin}/{{ID}}"));
        put(laid_out, "uiEditTemplate", format!("{origin}/{{ID}}/e"));
    }
    put(has(Lack::Lists), "listviews", format!("{own}/listviews"));
    put(true, "describe", format!("{own}/describe"));
    if let Some(origin) = origin {
        put(
            laid_out,
            "uiNewRecord",
            format!("{origin}/{}/e", object.prefix),
        );
    }
    put(
        has(Lack::Actions),
        "quickActions",
        format!("{own}/quickActions"),
    );
    put(laid_out, "layouts", format!("{own}/describe/layouts"));
    put(true, "sobject", own.clone());
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
    let plain = field.is_sortable();
    let filed = !matches!(
        field.kind,
        Type::Base64 | Type::Time | Type::Datetime | Type::Combobox
    );
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
        "aggregatable": plain && !matches!(field.kind, Type::Boolean | Type::Time),
        "aiPredictionField": false,
        "autoNumber": field.has(Mark::AutoNumber),
        "byteLength": match field.kind {
            Type::Id | Type::Reference => field.length,
            _ => field.length * 3,
        },
        "calculated": field.formula.is_some(),
        "calculatedFormula": field.formula,
        "cascadeDelete": false,
        "caseSensitive": false,
        "compoundFieldName": field.compound,
        "controllerName": null,
        "createable": field.has(Mark::Createable),
        "custom": field.is_custom(),
        "defaultValue": match field.kind {
            Type::Boolean => Value::from(field.has(Mark::DefaultTrue)),
            _ => Value::from(field.default.clone()),
        },
        "defaultValueFormula": null,
        "defaultedOnCreate": field.has(Mark::Defaulted),
        "dependentPicklist": false,
        "deprecatedAndHidden": false,
        "digits": if field.kind == Type::Int { field.precision } else { 0 },
        "displayLocationInDecimal": false,
        "encrypted": field.kind == Type::Encrypted,
        "externalId": field.has(Mark::ExternalId),
        "extraTypeInfo": extra_type(field),
        "filterable": field.is_filterable(),
        "filteredLookupInfo": null,
        "formulaTreatNullNumberAsZero": false,
        "groupable": plain && !field.kind.is_double() && filed && !field.has(Mark::AutoNumber),
        "highScaleNumber": false,
        "htmlFormatted": field.has(Mark::Html),
        "idLookup": field.is_key(),
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
        "unique": field.has(Mark::Unique),
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
    } else if field.has(Mark::Html) {
        Some("richtextarea")
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
        Type::Base64 => "xsd:base64Binary",
        Type::Time => "xsd:time",
        Type::Any => "xsd:anyType",
        _ => "xsd:string",
    }
}
