//! The `message` of every log event outside the access log, with its level and fields.
//!
//! Operators search and alert by these names, so a changed one is listed in CHANGELOG.md.

/// Error, `error`: accepting a connection failed; the listener tries again after a pause.
pub const ACCEPT_FAILED: &str = "accept_failed";
/// Error, `error`: the admin listener's thread ended.
pub const ADMIN_FAILED: &str = "admin_failed";
/// Info, `address`: the admin listener accepts connections.
pub const ADMIN_LISTENING: &str = "admin_listening";
/// Error, `error`: changed TLS files can't be used; the previous certificate stays in use.
pub const CERTIFICATE_REFUSED: &str = "certificate_refused";
/// Info: changed TLS files were read and are in use.
pub const CERTIFICATE_RELOADED: &str = "certificate_reloaded";
/// Error, `error`: a changed configuration can't be used; the previous one stays in use.
pub const CONFIG_REFUSED: &str = "config_refused";
/// Info, `changes`: a changed configuration is in use.
pub const CONFIG_RELOADED: &str = "config_reloaded";
/// Warn, `warning`: a setting of the configuration in use is valid, and probably not what is meant.
pub const CONFIG_WARNING: &str = "config_warning";
/// Warn, `descriptors`, `max_connections`: the process may open too few files for the configured `server.max_connections`.
pub const CONNECTIONS_LIMITED: &str = "connections_limited";
/// Warn, `error`: no connection to the server could be opened.
pub const CONNECT_FAILED: &str = "connect_failed";
/// Info, `tenant`, `kind`: enough comparisons have agreed; answers are derived in this way from now on.
pub const DERIVATION_PROVEN: &str = "derivation_proven";
/// Warn, `tenant`, `kind`, `query`: Refold's answer to this query differs from the derived one; no answer is derived in this way for an hour.
pub const DERIVATION_WRONG: &str = "derivation_wrong";
/// Debug, `error`: the soft limit on open files could not be raised to the hard one.
pub const DESCRIPTOR_LIMIT_KEPT: &str = "descriptor_limit_kept";
/// Warn: the drain timeout is over; requests still in flight are answered 503.
pub const DRAIN_TIMEOUT: &str = "drain_timeout";
/// Info: a termination signal arrived; the process drains.
pub const DRAINING: &str = "draining";
/// Warn, `url`, `reason`: an issuer's keys could not be fetched.
pub const JWKS_REFRESH_FAILED: &str = "jwks_refresh_failed";
/// Info: what this replica holds may not be current: its fleet's log has a gap or was lost, so all cached entries are dropped.
pub const FLEET_CACHE_FORGOTTEN: &str = "fleet_cache_forgotten";
/// Info, `version`: the fleet's Redis or Valkey is connected.
pub const FLEET_CONNECTED: &str = "fleet_connected";
/// Warn, `position`: an entry of the fleet's log can't be understood; told once. All entries were dropped.
pub const FLEET_LOG_ENTRY_UNKNOWN: &str = "fleet_log_entry_unknown";
/// Error, `script`, `error`: the fleet's server refuses a script; it counts as away.
pub const FLEET_SCRIPT_FAILED: &str = "fleet_script_failed";
/// Error: the names of the fleet derive from another secret than this replica's, which goes on alone; told once.
pub const FLEET_SECRET_DIFFERS: &str = "fleet_secret_differs";
/// Info, or warn for `alone`, `from`, `state`: the relation of this replica to its fleet changed.
pub const FLEET_STATE_CHANGED: &str = "fleet_state_changed";
/// Warn: the fleet's server has lost its data; budgets start anew, with the burst spent.
pub const FLEET_STATE_LOST: &str = "fleet_state_lost";
/// Error, `members`, `replicas`: more replicas run than `fleet.replicas` says; the budget may be exceeded while Redis is away.
pub const FLEET_TOO_MANY_REPLICAS: &str = "fleet_too_many_replicas";
/// Warn, `error`: the fleet's server can't be connected; told once per outage.
pub const FLEET_UNREACHABLE: &str = "fleet_unreachable";
/// Debug, `error`: a listener could not stop accepting connections ahead of its close.
pub const LISTENER_CLOSE_FAILED: &str = "listener_close_failed";
/// Info, `address`: a listener accepts connections.
pub const LISTENING: &str = "listening";
/// Error, `thread`, `place`: a thread panicked at this place in the source.
pub const PANICKED: &str = "panicked";
/// Warn, `peer`, `error_code`: a request to drop cached entries was refused.
pub const PURGE_REFUSED: &str = "purge_refused";
/// Info, `peer`, `tenant`, `one_account`, `linked_account`: an operator dropped cached entries.
pub const PURGED: &str = "purged";
/// Info, `tenant`, `linked_account`, `query`, `error_code`, `upstream_status`, `upstream_message`, `upstream_request_id`, `cause`: a stale page
/// could not be fetched anew; it is served stale as long as its stale windows allow it. The fields `upstream_…` are there if Refold has
/// answered, each as far as its answer has it, the message only where accounts are shown; `cause` otherwise. Not logged while the circuit is open.
pub const RENEWAL_FAILED: &str = "renewal_failed";
/// Info, `tenant`, `linked_account`, `query`, `upstream_us`: a stale page was fetched anew, and Refold took two seconds or more for it.
pub const RENEWAL_SLOW: &str = "renewal_slow";
/// Warn, `setting`: a changed setting takes effect after the next restart.
pub const RESTART_NEEDED: &str = "restart_needed";
/// Debug, `error`: the service manager could not be notified.
pub const SERVICE_MANAGER_NOTIFY_FAILED: &str = "service_manager_notify_failed";
/// Debug, `variable`: Kubernetes set this environment variable for a Service; it overrides no setting.
pub const SERVICE_VARIABLE_IGNORED: &str = "service_variable_ignored";
/// Error, `error`: the simulated Refold ended.
pub const SIMULATOR_FAILED: &str = "simulator_failed";
/// Warn, `spans`, `reason`: the collector did not accept spans; they are lost.
pub const SPANS_DROPPED: &str = "spans_dropped";
/// Info: the process has drained and ends.
pub const STOPPED: &str = "stopped";
/// Error, `error`: the thread that exports traces could not start.
pub const TRACES_FAILED: &str = "traces_failed";
/// Warn, `status`, `error`: Refold has accepted an action with a body that is not forwarded; the caller gets the status alone.
pub const UPSTREAM_ACTION_BODY_LEFT_OUT: &str = "upstream_action_body_left_out";
/// Warn, `tenant`: the tenant's circuit to Refold opened.
pub const UPSTREAM_CIRCUIT_OPENED: &str = "upstream_circuit_opened";
/// Warn: a worker's connections to a server were silent while a new one answered; they are closed.
pub const UPSTREAM_CONNECTIONS_ABANDONED: &str = "upstream_connections_abandoned";
/// Error, `tenant`: Refold refuses every org key of a tenant, by the check of `upstream.verify_key`.
pub const UPSTREAM_REJECTED_ORG_KEY: &str = "upstream_rejected_org_key";
/// Error: an upstream response contained an org key, and was refused or cut off before it.
pub const UPSTREAM_RESPONSE_CONTAINS_ORG_KEY: &str = "upstream_response_contains_org_key";
/// Info, `tenant`, `linked_accounts`: a signed webhook was received.
pub const WEBHOOK_RECEIVED: &str = "webhook_received";
