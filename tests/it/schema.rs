//! The published schemas are those of the types.

use std::path::Path;

/// `PG_UNFORK_UPDATE_SCHEMA=1 cargo test schema` writes the files anew.
#[test]
fn the_schemas_in_the_repository_are_generated_from_the_types() {
    let schemas = [("manifest", pg_unfork::manifest::schema()), ("listing", pg_unfork::listing::schema())];
    for (name, schema) in schemas {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/{name}.v1.schema.json"));
        let generated = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("PG_UNFORK_UPDATE_SCHEMA").is_some() {
            std::fs::write(&file, &generated).unwrap();
        }
        let published = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(published == generated, "{name}: run PG_UNFORK_UPDATE_SCHEMA=1 cargo test --test it schema");
    }
}
