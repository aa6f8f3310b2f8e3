//! What paying from a bank account needs of the world: a gateway that debits accounts, the
//! operator's list of banks, and a voice for the name of the company.

use std::sync::Arc;

use super::prompts::Synthesizer;
use crate::config::Config;
use crate::gateway::DEBIT_BANKS;
use crate::payment::Banks;
use crate::payment::banks::FILE_BYTES_MAX;
use crate::prompt::Library;

/// Refuses gateways that take cards alone.
pub fn gateways(config: &Config, takes_bank: bool) -> Result<(), String> {
    if config.payment.bank.is_none() || takes_bank {
        return Ok(());
    }
    let ids: Vec<&str> = config.gateways.iter().map(|settings| settings.id()).collect();
    Err(format!(
        "[payment.bank]: no gateway debits bank accounts by phone (ACH, SEC code TEL), only {} is \
         configured; add one of {DEBIT_BANKS}, or remove [payment.bank]",
        ids.join(", ")
    ))
}

/// The operator's list of banks, if there is one.
pub fn banks(config: &Config) -> Result<Option<Arc<Banks>>, String> {
    let file = config.payment.bank.as_ref().and_then(|bank| bank.routing_file.as_ref());
    let Some(file) = file else { return Ok(None) };
    let wrong = |why: String| format!("[payment.bank] routing_file {}: {why}", file.display());
    let length = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(wrong(format!("it has {length} bytes: is this the list of banks?")));
    }
    let bytes = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    // Names of banks are shown and said; other marks in them than letters are neither.
    let banks = Banks::parse(&String::from_utf8_lossy(&bytes)).map_err(|bad| {
        let lines: Vec<String> = bad.iter().map(ToString::to_string).collect();
        wrong(format!("\n  {}", lines.join("\n  ")))
    })?;
    Ok(Some(Arc::new(banks)))
}

/// Names that callers must hear, each with its key.
fn names(config: &Config) -> Vec<(&'static str, &String)> {
    let payment = &config.payment;
    let company = payment.bank.as_ref().map(|bank| ("[payment.bank] company", &bank.company));
    let payee = payment.payee.as_ref().map(|name| ("[payment] payee", name));
    let fee_payee = payment.fee_payee.as_ref().map(|name| ("[payment] fee_payee", name));
    [company, payee, fee_payee].into_iter().flatten().collect()
}

/// What to record where nobody can say the company's name, or another that callers must hear.
pub fn voice_problem(config: &Config, library: &Library) -> Option<String> {
    let unsaid = names(config).into_iter().find(|(_, name)| library.name(name).is_none());
    let (key, name) = unsaid.filter(|_| config.prompts.synthesis.is_none())?;
    Some(no_voice((key, name), "no voice can say it"))
}

fn no_voice((key, name): (&str, &str), why: &str) -> String {
    format!(
        "{key}: callers must hear \"{name}\", and {why}; record it as names/{}.wav in the folder \
         of [prompts] folder, or set [prompts.synthesis]",
        name.to_lowercase()
    )
}

/// Has these names ready for good: an authorisation that does not say the company is none.
pub async fn voice(
    config: &Config,
    library: &mut Library,
    synthesizer: &Synthesizer,
) -> Result<(), String> {
    if let Some(problem) = voice_problem(config, library) {
        return Err(problem);
    }
    for (key, name) in names(config) {
        if library.name(name).is_some() {
            continue;
        }
        let said = synthesizer.company(name).await;
        let clip = said.map_err(|why| {
            no_voice((key, name), &format!("the command of [prompts.synthesis] {why}"))
        })?;
        library.add_name(name, clip);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::library::tests::library;
    use crate::server::gateway as server_gateway;

    const BANK: &str = "[payment.bank]\ncompany = \"Acme Water\"\nphone = \"8005550100\"\n\
         time_zone = \"eastern\"\nwritten_notice = true\n";

    fn config(more: &str) -> Config {
        let profile = |name: &str| super::super::configuration::trunk_profile(name, "".as_ref());
        let parsed = Config::parse(&format!("{BANK}{more}"), &profile);
        parsed.unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    #[test]
    fn gateways_that_take_cards_alone_are_refused_with_those_that_do_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sk_test_1").unwrap();
        let key = file.path().display();
        let stripe = format!(
            "[gateway]\nname = \"stripe\"\n[gateway.settings]\n\
             environment = \"sandbox\"\nsecret_key = {{ file = \"{key}\" }}\n"
        );
        let why = server_gateway::check(&config(&stripe)).join("\n");
        assert!(why.contains("only stripe is configured"), "{why}");
        assert!(why.contains("add one of bogus, ") && why.contains("nmi"), "{why}");
        let mut cards_alone = config(&stripe);
        cards_alone.payment.bank = None;
        assert_eq!(server_gateway::check(&cards_alone), Vec::<String>::new());
        assert_eq!(server_gateway::check(&config("")), Vec::<String>::new());
    }

    #[test]
    fn a_list_of_banks_that_cannot_be_read_is_refused_by_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let name = format!("routing_file = \"{}\"\n", file.path().display());
        std::fs::write(file.path(), "routing,name\n021000021,First\n12,Second\n").unwrap();
        let why = banks(&config(&name)).unwrap_err();
        assert!(why.contains("[payment.bank] routing_file") && why.contains("line 3: no"), "{why}");
        std::fs::write(file.path(), "021000021,First\n").unwrap();
        assert_eq!(banks(&config(&name)).unwrap().unwrap().len(), 1);
        let gone = banks(&config("routing_file = \"/nonexistent\"\n")).unwrap_err();
        assert!(gone.contains("/nonexistent"), "{gone}");
    }

    #[tokio::test]
    async fn a_company_nobody_can_say_is_told_with_what_to_record() {
        let silent = config("");
        let why = voice_problem(&silent, &library()).unwrap();
        assert!(why.contains("names/acme water.wav"), "{why}");
        let failing = config("[prompts.synthesis]\ncommand = [\"false\"]\n");
        let mut library = crate::server::prompts::load(&failing.prompts).unwrap();
        let synthesizer = Synthesizer::new(failing.prompts.synthesis.clone());
        let why = voice(&failing, &mut library, &synthesizer).await.unwrap_err();
        assert!(why.contains("ended with") && why.contains("names/acme water.wav"), "{why}");
        library.add_name("Acme Water", crate::prompt::clip::silence(20));
        assert_eq!(voice(&silent, &mut library, &Synthesizer::new(None)).await, Ok(()));
        assert!(library.name("ACME water").is_some());
    }
}
