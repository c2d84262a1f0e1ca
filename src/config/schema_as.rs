//! The JSON Schema of types whose serde form is written by hand.

/// Implements `JsonSchema` for a type with the schema given as JSON.
macro_rules! schema_as {
    ($type:ty, $schema:tt) => {
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}
pub(super) use schema_as;
