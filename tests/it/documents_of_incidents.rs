//! `docs/incidents.md`: its commands find the causes of prepared incidents.

use std::process::Command;

use crate::documents::{blocks_in, page};
use crate::support::connection::with_key;
use crate::support::program::Program;
use crate::support::{ClientKey, Configuration, EXECUTIONS, Folder, KEY, ScriptedRefold, eventually, run_script};

/// The output of each block of commands of the page, which ask a running gateway and read its log.
async fn commands(program: &mut Program) -> Vec<String> {
    let folder = Folder::new();
    folder.write("postern.log", program.0.logged("{").join("\n"));
    let page = page("docs/incidents.md").replace("127.0.0.1:9180", &program.admin_address().await.to_string());
    let asks = |text: &&str| text.starts_with("curl ") || text.starts_with("jq ");
    let mut outputs = Vec::new();
    for block in blocks_in(&page, "sh").into_iter().filter(asks) {
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", block]).current_dir(folder.path());
        let output = tokio::task::spawn_blocking(move || run_script(&mut shell)).await.expect("no panic");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}{errors}");
        outputs.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    outputs
}

/// The first line of an output that contains a text.
fn first<'a>(output: &'a str, text: &str) -> &'a str {
    output.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text} in {output}"))
}

#[tokio::test]
#[ignore = "needs curl and jq"]
async fn the_commands_for_incidents_find_their_causes() {
    let keys = [ClientKey::new("dashboards", KEY), ClientKey::new("batch", "pst_batch")];
    let refold = ScriptedRefold::start().await;
    let config = |config: Configuration| {
        let fresh = config.admin().retries(0).client_keys(keys).stale("1h", "1h").client_limit(1, 30);
        fresh.set("cache.freshness.recent", "1ms").set("cache.freshness.live", "1ms")
    };
    let mut program = Program::start_before(refold.address(), config, None).await;
    let ask =
        async |program: &Program, key: &str, account: &str| program.ask(EXECUTIONS, &with_key(key, account)).await;
    // One key takes all of an account's budget, and another one gets its 429s.
    for (key, times) in [("pst_batch", 40), (KEY, 3)] {
        for _ in 0..times {
            ask(&program, key, "acme-2").await;
        }
    }
    // Refold fails for one account, whose page is served stale.
    ask(&program, KEY, "acme-1").await;
    refold.answer_by(|head| head.headers.get("linked_account_id").filter(|id| *id == "acme-1").map(|_| 500));
    eventually(async || ask(&program, KEY, "acme-1").await.contains("detail=stale")).await;
    for (text, lines) in [("\"renewal_failed\"", 1), ("\"linked_account\":\"acme-2\"", 43), ("hit_stale", 1)] {
        program.0.until_logged(text, lines).await;
    }
    ask(&program, "pst_unknown", "acme-1").await;
    program.0.until_logged("\"status\":401", 1).await;
    let outputs = commands(&mut program).await;
    let unknown = "1 INVALID_CREDENTIALS\tx-api-key is neither a client key nor the org key of a tenant with mode `validate`\t\t127.0.0.1";
    assert!(outputs[0].contains(unknown), "{}", outputs[0]);
    assert!(outputs[1].contains("error_code=\"RATE_LIMIT_EXCEEDED\",tenant=\"t\"} 1"), "{}", outputs[1]);
    // Which key gets the 429s, and which one sends the most for the account.
    let refused = first(&outputs[2], "outcome=\"429\"");
    assert!(refused.contains("name=\"batch\""), "{}", outputs[2]);
    let sends_most = outputs[3].lines().find(|line| line.contains("acme-2\t") && !line.contains("RATE_LIMIT"));
    assert!(sends_most.is_some_and(|line| line.contains("40 acme-2\tbatch")), "{}", outputs[3]);
    // Why the pages of the account are old.
    assert!(first(&outputs[4], "hit_stale").contains(EXECUTIONS), "{}", outputs[4]);
    assert!(first(&outputs[5], "cause").contains("INTERNAL_SERVER_ERROR"), "{}", outputs[5]);
    assert!(
        outputs[5].contains("postern_renewal_errors_total{error_code=\"UPSTREAM\",tenant=\"t\"} "),
        "{}",
        outputs[5]
    );
    assert!(first(&outputs[6], "acme-1\t").contains("INTERNAL_SERVER_ERROR"), "{}", outputs[6]);
    assert!(
        outputs[6].contains("served=\"stale\"") && outputs[6].contains("\"circuit\": \"closed\""),
        "{}",
        outputs[6]
    );
    assert!(
        outputs[6].contains("\"linked_account\":\"acme-1\",\"error_code\":\"INTERNAL_SERVER_ERROR\""),
        "{}",
        outputs[6]
    );
    assert!(outputs[9].contains("\"upstream_status\": 500"), "{}", outputs[9]);
    // Refold's failures, which no caller has seen.
    assert!(first(&outputs[8], "500\t").contains("INTERNAL_SERVER_ERROR"), "{}", outputs[8]);
    assert!(program.0.terminate().await.status.success());
}
