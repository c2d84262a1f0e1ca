//! Mode and owner of a Unix socket.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::schema_as::schema_as;
use super::text::parse_string;

/// Mode and owner of a Unix socket; settings that are left out stay as the process creates them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SocketFile {
    /// Octal permission bits, like "0660".
    #[serde(with = "Mode")]
    #[schemars(with = "Option<Mode>")]
    pub mode: Option<u32>,
    /// A user's name or number.
    #[serde(deserialize_with = "user_id")]
    #[schemars(with = "Option<String>")]
    pub owner: Option<u32>,
    /// A group's name or number.
    #[serde(deserialize_with = "group_id")]
    #[schemars(with = "Option<String>")]
    pub group: Option<u32>,
}

/// Permission bits in octal, as a number.
struct Mode;

impl Mode {
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
        parse_string(deserializer, |text| {
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
            bits.map(Some).ok_or_else(|| format!("`{text}` is no mode; write octal permission bits like \"0660\""))
        })
    }

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    fn serialize<S: Serializer>(mode: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
        mode.map(|bits| format!("{bits:04o}")).serialize(serializer)
    }
}

schema_as!(Mode, { "type": "string", "pattern": r"^0*[0-7]{1,3}$" });

fn user_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    parse_string(deserializer, |name| id(name, "/etc/passwd").map(Some))
}

fn group_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    parse_string(deserializer, |name| id(name, "/etc/group").map(Some))
}

/// A user's or group's id: a number, or that of a name in the database (passwd(5), group(5)).
fn id(name: &str, database: &str) -> Result<u32, String> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let text = std::fs::read_to_string(database).map_err(|error| format!("{database}: {error}"))?;
    let found = text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    found
        .and_then(|fields| fields.get(2)?.parse().ok())
        .ok_or_else(|| format!("there is no `{name}` in {database}; a number is accepted as well"))
}
