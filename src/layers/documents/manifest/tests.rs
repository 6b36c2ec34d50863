//! Manifests: the one of the seed, and all that may be wrong with one.

use super::*;

const SEED: &str = r#"
kind: "AOLAgent"
apiVersion: "v1"
metadata:
  name: "my-service"
  version: "1.0.0"
spec:
  displayName: "belongs to others"
  endpoints:
    grpc: "50051"
    health: 50052
  dependencies:
    - service: aol-core
  dataRequirements:
    enabled: true
    collections:
      - name: "events"
        description: "Application event log"
        schemaHint:
          event_id: "string"
          timestamp: "datetime"
          data: "object"
          body: text
        indexes:
          - fields: ["timestamp"]
            type: "ascending"
          - fields: ["event_type", "timestamp"]
            type: "compound"
          - fields: [event_id]
            type: ascending
            unique: true
          - fields: [number]
            type: unique
          - fields: [at]
            type: descending
      - name: metrics
    accessRequests:
      - collection: "other-service.shared_data"
        permission: "read"
        reason: "Need to correlate with external events"
"#;

fn wrong(text: &str, strict: bool) -> String {
    match Manifest::parse(text, strict) {
        Err(Error::InvalidArgument { field, rule, .. }) if field == "manifest" => rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_manifest_of_the_seed_is_read_with_both_spellings_of_indexes() {
    let manifest = Manifest::parse(SEED, true).unwrap();
    assert_eq!((manifest.service(), manifest.warnings.len()), ("my-service", 0));
    let (name, events) = &manifest.collections[0];
    assert_eq!((name.as_str(), events.description.as_str()), ("events", "Application event log"));
    assert!(events.schema_hint.contains(r#""timestamp":"datetime""#));
    let asc = SortField::ascending;
    assert_eq!(
        events.indexes.as_deref().unwrap(),
        [
            IndexSpec { fields: vec![asc("timestamp")], ..Default::default() },
            IndexSpec { fields: vec![asc("event_type"), asc("timestamp")], ..Default::default() },
            IndexSpec { fields: vec![asc("event_id")], unique: true, ..Default::default() },
            IndexSpec { fields: vec![asc("number")], unique: true, ..Default::default() },
            IndexSpec { fields: vec![SortField::descending("at")], ..Default::default() },
        ]
    );
    assert_eq!(manifest.collections[1].1.indexes.as_deref(), Some([].as_slice()));
    assert_eq!(manifest.requests[0].collection, "other-service.shared_data");
}

#[test]
fn what_is_wrong_is_told_all_at_once() {
    let all = wrong(
        r#"{"kind": "Deployment", "metadata": {"name": "a.b"}, "spec": {"endpoints": {"grpc": 0},
            "dataRequirements": {"collections": [{"name": "x/y", "ttl": 1, "indexes": [{"fields": [], "type": "hash"}]},
            {"name": "a", "schemaHint": {"f": "int"}, "indexes": [{"fields": ["b"], "type": "text"}]}, {"name": "a"}],
            "accessRequests": [{"collection": "s.c", "permission": "own"}]}}}"#,
        false,
    );
    for told in [
        "kind must be one of AOLAgent",
        "apiVersion must be v1",
        "metadata.name must be letters",
        "metadata.version must be a text",
        "spec.endpoints.health must be there",
        "spec.endpoints.grpc must be a port",
        "spec.dataRequirements.enabled must be true or false",
        "spec.dataRequirements.collections[0].name must be letters",
        "spec.dataRequirements.collections[0].ttl is no field here",
        "spec.dataRequirements.collections[0].indexes[0].fields must name at least one field",
        "spec.dataRequirements.collections[0].indexes[0].type must be one of",
        "spec.dataRequirements.collections[1].schemaHint.f must be one of string",
        "spec.dataRequirements.collections[1].indexes[0].type text is not supported",
        "spec.dataRequirements.collections must not have \"a\" twice",
        "spec.dataRequirements.accessRequests[0].permission must be read, write or admin",
    ] {
        assert!(all.contains(told), "{told}\n{all}");
    }
}

#[test]
fn what_is_odd_is_warned_of_and_what_is_unknown_refused_if_strict() {
    let text = SEED
        .replace("1.0.0", "one")
        .replace("service: aol-core", "service: other")
        .replace("apiVersion", "extra: 1\napiVersion");
    let manifest = Manifest::parse(&text, false).unwrap();
    assert_eq!(manifest.warnings.len(), 2, "{:?}", manifest.warnings);
    assert!(wrong(&text, true).contains("extra is no field here"));
    assert!(Manifest::parse(&SEED.replace("enabled: true", "enabled: false"), false).unwrap().collections.is_empty());
    assert!(wrong("[1, 2", false).contains("must be YAML or JSON"));
    assert!(wrong("- 1", false).contains("must be an object"));
    assert!(wrong(&"x".repeat(BYTES + 1), false).contains("at most"));
    for (version, is) in [
        ("1.0.0", true),
        ("0.1.2-rc.1+b7", true),
        ("1.0", false),
        ("01.0.0", false),
        ("1.0.0-", false),
        ("v1.0.0", false),
    ] {
        assert_eq!(is_version(version), is, "{version}");
    }
}
