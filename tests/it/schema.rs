//! The published schema is that of the types.

use std::path::Path;

/// `PG_UNFORK_UPDATE_SCHEMA=1 cargo test schema` writes the file anew.
#[test]
fn the_schema_in_the_repository_is_generated_from_the_types() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/manifest.v1.schema.json");
    let generated = format!("{}\n", serde_json::to_string_pretty(&pg_unfork::manifest::schema()).unwrap());
    if std::env::var_os("PG_UNFORK_UPDATE_SCHEMA").is_some() {
        std::fs::write(&file, &generated).unwrap();
    }
    let published = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(published == generated, "run PG_UNFORK_UPDATE_SCHEMA=1 cargo test --test it schema");
}
