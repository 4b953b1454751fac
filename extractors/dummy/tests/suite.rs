//! The suite of every extractor, against a stand-in of the API; and the mapping.

mod standin;

use drover_extractor_dummy::Dummy;
use drover_pipeline::extract::Extractor;
use drover_pipeline::http::HttpClient;
use drover_pipeline::transform::Mapping;
use standin::StandIn;

drover_pipeline::extractor_suite!(StandIn);

/// Each entity and each field that the mapping names is there, and what an
/// entity requires is filled.
#[test]
fn the_mapping_fits_the_entities() {
    let mapping = Mapping::parse("mapping.yaml", Dummy::mapping()).expect("a mapping");
    for slot in mapping
        .objects
        .values()
        .flat_map(|object| object.slots.values())
    {
        let entity = drover_schemas::entity(&slot.entity);
        let entity = entity.unwrap_or_else(|| panic!("no entity {}", slot.entity));
        for field in slot.fields.keys() {
            assert!(entity.field(field).is_some(), "{}.{field}", entity.name);
        }
        let mut required = entity.fields.iter().filter(|field| field.required);
        let missing = required.find(|field| !slot.fields.contains_key(&field.name));
        assert_eq!(missing.map(|field| &field.name), None, "{}", entity.name);
    }
}

/// All that is wrong with a configuration is told at once, with its place.
#[test]
fn a_wrong_configuration_is_refused() {
    let config = serde_json::from_str(r#"{"url": "here", "apiKey": ""}"#).expect("a config");
    let http = HttpClient::new().expect("a client");
    let problems = Dummy::new(config, http).err().unwrap_or_default();
    let places: Vec<&str> = problems
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    assert_eq!(places, ["sourceConfig.url", "sourceConfig.apiKey"]);
}
