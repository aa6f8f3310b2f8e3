//! Configurations right and wrong, and what is said of them.

use super::*;
use crate::sip::Transport;
use crate::sip::trunk::Arrival;

const GENERIC: &str = "name = \"generic\"\n";

fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    Config::parse(text, &|name| (name == "generic").then(|| GENERIC.to_string()))
}

fn problems(text: &str) -> Vec<String> {
    let problems = parse(text).err().unwrap_or_default();
    problems.iter().map(|problem| problem.render("ringtill.toml", text)).collect()
}

/// The trunk that serves a call from there by UDP.
fn trunk<'c>(config: &'c Config, source: &str) -> Option<&'c Profile> {
    let (transport, source) = (Transport::Udp, source.parse().unwrap());
    let arrival = Arrival { transport, source, certificate: None };
    config.trunks.iter().find(|trunk| trunk.admits(&arrival).is_ok())
}

#[test]
fn an_empty_file_is_a_configuration_for_this_machine_alone() {
    let config = parse("").expect("defaults hold");
    assert!(trunk(&config, "127.0.0.1").is_some());
    assert!(trunk(&config, "203.0.113.9").is_none());
}

/// What the commented example says is what happens without it.
#[test]
fn the_example_states_the_defaults() {
    let text = include_str!("../../ringtill.toml");
    let mut example = parse(text).unwrap_or_else(|_| panic!("{}", problems(text).join("\n")));
    example.trunks[0].name = "generic".into();
    assert_eq!(format!("{example:?}"), format!("{:?}", parse("").expect("defaults hold")));
    // Every key that is commented out is right too.
    let all: Vec<&str> = text
        .lines()
        .map(|line| {
            let key = line
                .strip_prefix("# ")
                .filter(|rest| rest.contains(" = ") || rest.starts_with('['));
            key.unwrap_or(line)
        })
        .collect();
    let all = all.join("\n");
    assert_eq!(problems(&all), [""; 0], "{all}");
}

#[test]
fn every_mistake_is_reported_at_once_with_line_caret_and_remedy() {
    let text = "[sip]\nlisten = \"127.0.0.1:5060\"\ncalls_maxx = 5\n\n[media]\nports = [20000, 19000]\n\n[paymnt]\nfee = \"2\"\n\n[payment]\nfee = \"two\"\ncards = [\"visa\", \"vista\"]\n";
    let all = problems(text);
    let expect = [
        ["unknown section `paymnt`", "ringtill.toml:8:2", "did you mean `payment`?"],
        ["unknown key `calls_maxx` in [sip]", "ringtill.toml:3:1", "did you mean `calls_max`?"],
        ["payment.fee: `two` is no amount", "ringtill.toml:12:7", "write \"2.00\""],
        ["unknown card `vista`", "ringtill.toml:13:9", "mastercard"],
        ["the first port must be well below", "ringtill.toml:6:9", "2 ports a call"],
    ];
    for parts in expect {
        let found = all.iter().any(|problem| parts.iter().all(|part| problem.contains(part)));
        assert!(found, "{parts:?} not in\n{}", all.join("\n"));
    }
    assert_eq!(all.len(), expect.len(), "{}", all.join("\n"));
    assert!(all.iter().all(|problem| problem.contains('^')), "{}", all.join("\n"));
}

#[test]
fn an_address_without_quotes_gets_the_hint() {
    let all = problems("[sip]\nlisten = 0.0.0.0:5060\n");
    assert!(all[0].contains("put text in quotes") && all[0].contains(":2:"), "{}", all.join("\n"));
}

#[test]
fn a_trunk_builds_on_its_profile_and_must_say_where_it_calls_from() {
    let text = "[sip]\nlisten = \"127.0.0.1:5060\"\n\n[[trunk]]\nname = \"pbx\"\nsources = [\"192.0.2.0/24\"]\ntrust_caller_id = true\n";
    let config = parse(text).expect("a good trunk");
    let trunk = trunk(&config, "192.0.2.7").expect("matches");
    assert_eq!((trunk.name.as_str(), trunk.trust_caller_id), ("pbx", true.into()));
    let all = problems("[sip]\nlisten = \"127.0.0.1:5060\"\n\n[[trunk]]\nname = \"pbx\"\n");
    assert!(all[0].contains("no `sources`"), "{}", all.join("\n"));
    let all = problems("[sip]\nlisten = \"127.0.0.1:5060\"\n\n[[trunk]]\nprofile = \"asterix\"\n");
    assert!(all[0].contains("no trunk profile `asterix`"), "{}", all.join("\n"));
    let all =
        problems("[[trunk]]\nsources = [\"192.0.2.0/99\"]\n[sip]\nlisten = \"127.0.0.1:1\"\n");
    assert!(all[0].contains("trunk.sources"), "{}", all.join("\n"));
}

#[test]
fn what_no_single_key_can_say_is_checked_too() {
    let listen = "[sip]\nlisten = \"127.0.0.1:5060\"\n";
    for (more, part) in [
        ("[payment]\nmin_payment = \"10\"\nmax_payment = \"5\"\n", "min_payment is above"),
        ("[payment]\nbiller = \"../etc\"\n", "file names"),
        ("[gateway]\nname = \"bogos\"\n", "no such gateway"),
        ("[agent]\nuri = \"agents@pbx\"\n", "SIP URI"),
        ("[payment]\nfee = 2\n", "expected an amount in quotes, such as \"2.00\""),
        ("[media]\nthreads = 0\n", "1 to 64"),
        ("[media]\naddress = \"0.0.0.0\"\n", "no address of this machine"),
        ("[dialogue]\nfirst_key_ms = 18446744073709551\n", "1000 to 60000"),
        ("[dialogue]\nattempts = 0\n", "1 to 10"),
        ("[payment]\ngateway_limit_ms = 600000\n", "1000 to 60000"),
        ("[payment]\ndeclines_max = 0\n", "1 to 10"),
        ("[payment.later]\ntime_zone = \"eastern\"\n", "add [payment.saved]"),
        ("[payment.saved]\n[payment.later]\n", "write time_zone = \"eastern\""),
        ("[payment]\naccount_len_max = 0\n", "1 to 32"),
        ("[payment]\nmin_payment = \"0\"\nmax_payment = \"0\"\n", "nothing could be paid"),
        ("[posting]\ninterval_s = 0\n", "1 to 86400"),
        ("connections_per_source = 2000\n", "make it the smaller one"),
        ("idle_minutes = 0\n", "1 to 1440"),
        ("[sip.tls]\ncertificate_file = \"a\"\n", "missing field `key_file`"),
        (
            "[sip.tls]\ncertificate_file = \"a\"\nkey_file = \"b\"\nclient_required = true\n",
            "add client_ca_file",
        ),
        ("[log]\nlevel = \"inof\"\n", "`inof` is no level"),
        ("[log]\nlevel = \"info,ringtill::sip=loud\"\n", "is no level"),
    ] {
        let all = problems(&format!("{listen}{more}"));
        assert!(all.len() == 1 && all[0].contains(part), "{part}: {}", all.join("\n"));
    }
    let all = problems("[sip]\nlisten = \"0.0.0.0:5060\"\n");
    assert!(all[0].contains("where to send their audio"), "{}", all.join("\n"));
}

#[test]
fn gateways_are_one_or_many_and_take_every_card_together() {
    let none = parse("").expect("all defaults").gateways;
    assert!(none.len() == 1 && none[0].is_simulated() && none[0].id() == "bogus");
    let one = |keys: &str| {
        let settings = "[gateway.settings]\nbase_url = \"x\"\napi_key = { env = \"K\" }\n";
        format!("[[gateway]]\nname = \"bogus\"\n{keys}{settings}")
    };
    let two = format!("{}{}", one("id = \"a\"\nlimit_ms = 50000\n"), one("cards = [\"visa\"]\n"));
    let config = parse(&two).expect("two");
    let ids: Vec<&str> = config.gateways.iter().map(Gateway::id).collect();
    assert_eq!(ids, ["a", "bogus"]);
    assert_eq!(config.gateway_limit(), Duration::from_secs(50));
    assert!(config.gateways[0].takes_card(Brand::Amex));
    assert!(!config.gateways[1].takes_card(Brand::Amex));
    let cards = "cards = [\"visa\", \"amex\"]\n";
    for (text, part, line) in [
        (format!("{}{}", one(""), one("")), "another one has the same id", ":6:"),
        (format!("{}[[gateway]]\nid = \"b\"\n", one("")), "gateway `b`: this gateway needs", ":6:"),
        (one("id = \"a b\"\n"), "the ledger and the logs keep", ":3:"),
        (one(cards), "no gateway takes mastercard", ":3:"),
        (one("cards = [\"vista\"]\n"), "unknown card `vista`", ":3:"),
        (one("limit_ms = 5\n"), "1000 to 60000", ":3:"),
        (one("failures_max = 0\n"), "1 to 1000", ":3:"),
        (one("rest_s = 0\n"), "1 to 3600", ":3:"),
        (one("nmae = \"x\"\n"), "did you mean `name`?", ":3:"),
        ("gateway = []\n".into(), "nothing could be charged", ":1:"),
        ("gateway = [1]\n".into(), "a gateway is a section", ":1:"),
    ] {
        let all = problems(&text);
        let found = all.iter().any(|problem| problem.contains(part) && problem.contains(line));
        assert!(found, "{part}: {}", all.join("\n"));
    }
}

#[test]
fn debits_by_file_are_checked_line_by_line() {
    let settings = crate::ach::settings::EXAMPLE;
    let bank = "[payment]\ncards = []\n[payment.bank]\ncompany = \"Acme\"\n\
                phone = \"8005550100\"\ntime_zone = \"eastern\"\nwritten_notice = true\n";
    let nacha = |more: &str, settings: &str| {
        format!("[gateway]\nname = \"nacha\"\n{more}[gateway.settings]\n{settings}{bank}")
    };
    let config = parse(&nacha("", settings)).expect("bank accounts alone");
    assert!(!config.gateways[0].takes_card(Brand::Visa) && config.payment.cards.is_empty());
    for (text, part, line) in [
        (nacha("", &settings.replace("16:30", "25:00")), "no time of day", ":10:"),
        (nacha("", &settings.replace("091000019", "1")), "no routing number", ":4:"),
        (nacha("", &settings.replace("directory", "dir")), "`directory` is missing", "write dir"),
        (nacha("cards = [\"visa\"]\n", settings), "leave `cards` out", ":3:"),
        (nacha("", settings).replace("cards = []\n", ""), "no gateway takes visa", "cards = []"),
        (nacha("", settings).replace(bank, ""), "nobody may pay by one", "[payment.bank]"),
        ("[gateway]\nname = \"nacha\"\n".into(), "needs its settings", "account_key"),
        ("[payment]\ncards = []\n".into(), "nothing would be accepted", ":2:"),
    ] {
        let all = problems(&text);
        let found = all.iter().any(|problem| problem.contains(part) && problem.contains(line));
        assert!(found, "{part}: {}", all.join("\n"));
    }
}

#[test]
fn listeners_are_one_or_many_and_cannot_all_stand_together() {
    let listen = |value: &str| format!("[sip]\nlisten = {value}\n");
    let one = parse(&listen("\"127.0.0.1:5060\"")).expect("plain").sip.listen;
    assert_eq!(one, parse(&listen("[\"udp:127.0.0.1:5060\"]")).expect("a list").sip.listen);
    let tls = "[sip.tls]\ncertificate_file = \"a\"\nkey_file = \"b\"\n";
    let all = "[\"127.0.0.1:5060\", \"tcp:127.0.0.1:5060\", \"tls:[::1]:5061\"]";
    let many = parse(&format!("{}{tls}", listen(all))).expect("many").sip.listen;
    let shown: Vec<String> = many.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["udp:127.0.0.1:5060", "tcp:127.0.0.1:5060", "tls:[::1]:5061"]);
    for (value, part) in [
        ("[]", "nobody could call"),
        ("\"sctp:127.0.0.1:5060\"", "`sctp:127.0.0.1:5060` is no address: write"),
        ("\"pbx.example.com\"", "is no address: write"),
        ("5060", "an address in quotes, or a list"),
        ("[\"tcp:127.0.0.1:5060\", \"tcp:127.0.0.1:5060\"]", "this port is taken"),
        ("\"tls:127.0.0.1:5061\"", "add [sip.tls]"),
        ("[\"udp:127.0.0.1:5060\", \"tcp:[::]:5060\"]", "how to reach tcp:[::]:5060"),
    ] {
        let all = problems(&listen(value));
        let found = all.iter().any(|problem| problem.contains(part) && problem.contains(":2:"));
        assert!(found, "{value}: {}", all.join("\n"));
    }
}

#[test]
fn a_trunk_that_is_no_section_and_a_wildcard_contact_are_reported() {
    let all = problems("trunk = [1]\n[sip]\nlisten = \"127.0.0.1:5060\"\n");
    assert!(all.len() == 1 && all[0].contains("[[trunk]]"), "{}", all.join("\n"));
    // Media has an address, but Contact would still have none.
    let text = "[sip]\nlisten = \"0.0.0.0:5060\"\n[media]\naddress = \"127.0.0.1\"\n";
    let all = problems(text);
    assert!(all.len() == 1 && all[0].contains("public_address"), "{}", all.join("\n"));
}

#[test]
fn callers_are_told_where_media_listens() {
    let audio = |more: &str| {
        let config = parse(&format!("[sip]\nlisten = \"127.0.0.1:5060\"\n{more}")).expect("right");
        config.public_media_address().expect("known").to_string()
    };
    assert_eq!(audio(""), "127.0.0.1");
    assert_eq!(audio("[media]\naddress = \"127.0.0.2\"\n"), "127.0.0.2");
    let behind_nat = "public_address = \"203.0.113.5\"\n[media]\naddress = \"127.0.0.2\"\n";
    assert_eq!(audio(behind_nat), "203.0.113.5");
}

#[test]
fn a_trunk_that_cannot_work_is_told() {
    let trunk = |keys: &str| {
        let all =
            problems(&format!("[[trunk]]\nname = \"x\"\nsources = [\"192.0.2.1/32\"]\n{keys}\n"));
        all.join("\n")
    };
    for (keys, want) in [
        ("", ""),
        ("transports = [\"tls\"]", "on which nobody listens"),
        ("transports = [\"tls\", \"udp\"]", ""),
        ("certificates = [\"sip.example.com\"]", "client_ca_file in [sip.tls]"),
        ("sensitive_media = \"srtp\"", "srtp is off"),
        ("sensitive_media = \"srtp\"\nsrtp = \"required\"", "must come by TLS"),
        ("proxy = \"pbx.example.com\"", "is no SIP URI"),
        ("options_s = 30", "needs somebody to ask"),
        ("calls_max = 0", "no call could be taken"),
        ("calls_per_second = 0", "no call could be taken"),
        ("calls_max = 30", ""),
        ("register = { registrar = \"sip:h\", address = \"me\" }", "`me` is no SIP URI"),
    ] {
        let told = trunk(keys);
        assert!(told.contains(want) && told.is_empty() == want.is_empty(), "{keys}: {told}");
    }
}

#[test]
fn media_threads_follow_the_calls() {
    let threads = |calls_max| {
        let text = format!("[sip]\ncalls_max = {calls_max}\n");
        parse(&text).expect("right").media_threads()
    };
    assert_eq!([1, 500, 1_250, 1_251, 10_000].map(threads), [1, 1, 1, 2, 8]);
}

/// The facts of an authorisation, and something that shows it was given, are there before a call.
#[test]
fn bank_accounts_are_not_taken_without_what_an_authorisation_needs() {
    let bank = |more: &str| {
        let slots = "company = \"A\"\nphone = \"8005550100\"\ntime_zone = \"eastern\"\n";
        format!("[payment.bank]\n{slots}{more}")
    };
    let all = problems(&bank(""));
    let remedy = ["add authorisations = \"FOLDER\" to [recording]", "written_notice = true"];
    assert!(all.len() == 1 && remedy.iter().all(|part| all[0].contains(part)), "{all:?}");
    assert!(all[0].contains("ringtill.toml:1:"), "{all:?}");
    assert_eq!(problems(&bank("written_notice = true\n")), [""; 0]);
    let recorded = "[recording]\nauthorisations = \"a\"\n";
    assert_eq!(problems(&bank(recorded)), [""; 0]);
    let brief = problems(&bank(&format!("{recorded}authorisations_years = 1\n")));
    assert!(brief[0].contains("authorisations_years must be 2 to 20"), "{brief:?}");
    let missing = problems("[payment.bank]\nphone = \"8005550100\"\nwritten_notice = true\n");
    let slots = ["payment.bank: `company` is missing", "`time_zone` is missing"];
    assert!(slots.iter().all(|part| missing[0].contains(part)), "{missing:?}");
}

#[test]
fn several_accounts_are_not_offered_where_no_card_is_taken() {
    let told = |cards: &str| problems(&format!("[payment]\nseveral_accounts = true\n{cards}"));
    assert_eq!(told(""), [""; 0]);
    let all = told("cards = []\n").join("\n");
    assert!(all.contains("ringtill.toml:2:") && all.contains("no card is taken"), "{all}");
}

#[test]
fn an_engine_that_cannot_hear_is_refused() {
    let told = |engine: &str| problems(&format!("[speech]\nengine = \"{engine}\"\n")).join("\n");
    for engine in ["off", "digits"] {
        assert_eq!(told(engine), "", "{engine}");
    }
    for (engine, why) in [
        ("digts", "no engine is called `digts`"),
        ("digits:own.bin", "`digits` has its own model"),
        ("whisper", "whisper wants a ggml model"),
        #[cfg(not(feature = "whisper"))]
        ("whisper:ggml-base.bin", "build it with `--features whisper`"),
    ] {
        assert!(told(engine).contains(why), "{engine}: {}", told(engine));
    }
    #[cfg(feature = "whisper")]
    assert_eq!(told("whisper:ggml-base.bin"), "");
}

#[test]
fn callers_may_say_what_the_engine_understands_or_what_is_told() {
    let offered = |text: &str| {
        let config = parse(&format!("[speech]\n{text}")).unwrap();
        config.speech.offered().to_string()
    };
    assert_eq!(offered("engine = \"off\"\n"), "");
    assert_eq!(offered("engine = \"digits\"\n"), "yesno");
    assert_eq!(offered("engine = \"digits\"\nfields = [\"zip\", \"card\"]\n"), "card, zip");
    assert_eq!(offered("engine = \"off\"\nfields = [\"zip\"]\n"), "");
    let all = "card, routing, zip, expiry, cvv, amount, yesno, menu, account";
    assert_eq!(offered("engine = \"digits\"\nfields = [\"all\"]\n"), all);
    let told = problems("[speech]\nengine = \"digits\"\nfields = [\"card\", \"pin\"]\n").join("\n");
    assert!(told.contains("ringtill.toml:3:") && told.contains("`pin`"), "{told}");
    assert!(told.contains("menu, account, all"), "{told}");
}

#[test]
fn fees_charged_by_themselves_need_a_gateway_of_their_own() {
    let gateway = |id: &str, more: &str| {
        format!(
            "[[gateway]]\nname = \"bogus\"\nid = \"{id}\"\n{more}[gateway.settings]\n\
             base_url = \"https://g.example\"\napi_key = \"k\"\n"
        )
    };
    let (main, fees) = (gateway("main", ""), gateway("fees", ""));
    let two = "[payment]\nfee = \"2.00\"\nfee_mode = \"two_mid\"\n";
    let named = format!("{two}fee_gateway = \"fees\"\n");
    let good = format!("{named}fee_failure = \"waive\"\npayee = \"Acme\"\nfee_payee = \"Till\"\n");
    assert_eq!(problems(&format!("{good}{main}{fees}")), [""; 0]);
    let config = parse(&format!("{good}{main}{fees}")).unwrap();
    assert!(
        config.is_fee_gateway(&config.gateways[1]) && !config.is_fee_gateway(&config.gateways[0])
    );
    let amex = gateway("fees", "cards = [\"visa\"]\n");
    let bank = "[payment.bank]\ncompany = \"A\"\nphone = \"8005550100\"\ntime_zone = \"eastern\"\n\
                written_notice = true\n";
    for (text, wants) in [
        (format!("{two}{main}{fees}"), ["which gateway charges the fee", "fee_gateway = \"ID\""]),
        (format!("{named}{main}"), ["no gateway has the id `fees`", "there are main"]),
        (format!("{named}{fees}"), ["no gateway takes visa", "add it to the `cards`"]),
        (format!("{named}{main}{amex}"), ["`fees` takes no mastercard", "`cards` of that gateway"]),
        (
            format!("[payment]\nfee_mode = \"two_mid\"\nfee_gateway = \"fees\"\n{main}{fees}"),
            ["and there is none", "add fee = \"2.00\""],
        ),
        (
            format!("{named}[payment.saved]\n{main}{fees}"),
            ["a kept card is one gateway's", "remove [payment.saved]"],
        ),
        (
            format!("{named}{bank}{main}{fees}"),
            ["an authorisation is of one debit", "add fee = \"0.00\" to [payment.bank]"],
        ),
        (
            "[payment]\nfee_gateway = \"fees\"\n".into(),
            ["the fee is no charge of its own", "fee_mode = \"two_mid\""],
        ),
        (
            "[payment]\nfee_failure = \"keep\"\n".into(),
            ["payment.fee_failure: `keep`", "\"void\" or \"waive\""],
        ),
        ("[payment]\nfee_mode = \"split\"\n".into(), ["unknown variant `split`", "two_mid"]),
    ] {
        let told = problems(&text).join("\n");
        assert!(wants.iter().all(|want| told.contains(want)), "{text}\n{told}");
    }
    let free = format!("{named}{bank}fee = \"0.00\"\n{main}{fees}");
    assert_eq!(problems(&free), [""; 0]);
}

#[test]
fn a_surcharge_keeps_to_the_rules_of_the_networks() {
    let surcharge = |percent: &str, more: &str| {
        format!("[payment.surcharge]\npercent = \"{percent}\"\nbins = \"bins.csv\"\n{more}")
    };
    assert_eq!(problems(&surcharge("3", "")), [""; 0]);
    assert_eq!(problems(&surcharge("4", "cards = [\"mastercard\"]\n")), [""; 0]);
    for (text, want) in [
        (surcharge("3.01", ""), "Visa allows 3 percent at most"),
        (surcharge("4.01", "cards = [\"mastercard\"]\n"), "networks allow 4 percent at most"),
        (surcharge("0", ""), "that is nothing"),
        (format!("[payment]\nfee = \"1\"\n{}", surcharge("3", "")), "not both"),
        (format!("[payment]\nzip = false\n{}", surcharge("3", "")), "write zip = true"),
        ("[payment.surcharge]\npercent = \"3\"\n".into(), "missing field `bins`"),
    ] {
        let told = problems(&text).join("\n");
        assert!(told.contains(want), "{text}\n{told}");
    }
}
