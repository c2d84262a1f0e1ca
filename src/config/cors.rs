//! `[cors]`: browser pages of other origins that may use the gateway.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::setting_path::{InvalidSetting, SettingPath};
use super::units::AnyDuration;

/// Browser pages of other origins that may use the gateway (the Fetch standard, 3.2).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    /// Scheme, host and port alone, like `https://app.example.com`; or `["*"]` for all.
    pub origins: Vec<String>,
    /// Time for which a browser may remember the answer to a preflight.
    #[serde(default = "max_age", with = "AnyDuration")]
    pub max_age: Duration,
}

fn max_age() -> Duration {
    Duration::from_mins(10)
}

impl CorsConfig {
    /// Checks the origins, and puts them in the lower case in which browsers send them.
    pub(super) fn check(&mut self, at: &SettingPath) -> Result<(), InvalidSetting> {
        let is_alone = self.origins.len() == 1;
        for (index, origin) in self.origins.iter_mut().enumerate() {
            let uri: Option<http::Uri> = origin.parse().ok();
            let is_origin = uri.is_some_and(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https")) && uri.path() == "/" && !origin.ends_with('/')
            });
            if !(is_origin || origin == "*" && is_alone) {
                let message =
                    "an origin is scheme, host and port alone, like \"https://app.example.com\"; or [\"*\"] for all";
                return Err(at.key("origins").index(index).refuse(message));
            }
            origin.make_ascii_lowercase();
        }
        Ok(())
    }
}
