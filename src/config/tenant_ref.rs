//! References to a tenant by its id.

use std::sync::Arc;

use serde::de::{Deserialize, Deserializer};
use serde::{Serialize, Serializer};

use super::schema_as::schema_as;
use super::setting_path::{InvalidSetting, SettingPath};
use super::tenant::TenantConfig;
use crate::suggest::suggest;

/// A tenant that another table names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRef {
    id: Arc<str>,
    /// `None` from deserialisation until [`TenantRef::resolve`], which `Config::parse` runs for every reference.
    index: Option<usize>,
}

impl TenantRef {
    /// The id of the tenant.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The index of the tenant in the list of tenants.
    ///
    /// # Panics
    /// If the configuration has not resolved it, which `Config::parse` does before it returns.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index.expect("Config::parse resolves every reference")
    }

    /// Finds the tenant.
    pub(super) fn resolve(&mut self, tenants: &[Arc<TenantConfig>], at: &SettingPath) -> Result<(), InvalidSetting> {
        self.index = tenants.iter().position(|tenant| tenant.id == self.id);
        if self.index.is_some() {
            return Ok(());
        }
        let suggestion = suggest(&self.id, tenants.iter().map(|tenant| &*tenant.id));
        let suggestion = suggestion.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        Err(at.miss(format!("there is no tenant `{}`{suggestion}", self.id)))
    }
}

impl<'de> Deserialize<'de> for TenantRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|id| Self { id: id.into(), index: None })
    }
}

impl Serialize for TenantRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.id)
    }
}

schema_as!(TenantRef, { "type": "string" });
