//! Offers as they come, and what is made of them.

use super::*;

mod opus;

fn local() -> Local {
    Local {
        address: "192.0.2.10".parse().unwrap(),
        port: 4000,
        codecs: vec![Codec::Pcmu, Codec::Pcma],
        events: true,
        silence: Silence::Packets,
        session_id: 77,
        session_version: 3,
        srtp: SrtpPolicy::Off,
        keys: SrtpSeed::new([7; 32]),
    }
}

fn sdp(media: &str) -> Vec<u8> {
    format!("v=0\r\no=x 1 1 IN IP4 192.0.2.4\r\ns=-\r\nc=IN IP4 192.0.2.4\r\nt=0 0\r\n{media}")
        .into_bytes()
}

fn answered(media: &str) -> (String, Negotiated) {
    let (bytes, negotiated) = answer(&sdp(media), &local()).unwrap();
    (String::from_utf8(bytes).unwrap(), negotiated)
}

#[test]
fn a_plain_offer_without_rtpmap() {
    let (text, agreed) = answered("m=audio 49217 RTP/AVP 18 8 0\r\n");
    assert_eq!(agreed.remote, Some("192.0.2.4:49217".parse().unwrap()));
    assert_eq!((agreed.codec, agreed.events_out, agreed.ptime_ms), (Codec::Pcmu, None, 20));
    assert!(text.contains("o=- 77 3 IN IP4 192.0.2.10\r\n"));
    assert!(text.contains("m=audio 4000 RTP/AVP 0\r\n"), "{text}");
    assert!(text.contains("a=sendrecv"));
}

#[test]
fn lines_are_answered_in_order() {
    let (text, _) = answered(
        "m=video 3227 RTP/AVP 31\r\nm=audio 5000 RTP/SAVP 0\r\nm=audio 5002 RTP/AVP 0\r\n\
         m=image 5004 udptl t38\r\n",
    );
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(
        lines,
        [
            "m=video 0 RTP/AVP 31",
            "m=audio 0 RTP/SAVP 0",
            "m=audio 4000 RTP/AVP 0",
            "m=image 0 udptl t38"
        ]
    );
}

#[test]
fn telephone_event_is_mirrored() {
    let (text, agreed) = answered(
        "m=audio 5000 RTP/AVP 0 97 96\r\na=rtpmap:97 telephone-event/48000\r\n\
         a=rtpmap:96 Telephone-Event/8000\r\na=ptime:30\r\n",
    );
    assert_eq!((agreed.events_out, agreed.events_in), (Some((96, 8000)), Some((96, 8000))));
    assert_eq!(agreed.ptime_ms, 30);
    assert!(text.contains("a=fmtp:96 0-16"));
    let (_, agreed) =
        answered("m=audio 5000 RTP/AVP 0 97\r\na=rtpmap:97 telephone-event/16000\r\n");
    assert_eq!(agreed.events_out, Some((97, 16000)));
    let (_, agreed) = answered("m=audio 5000 RTP/AVP 0\r\na=rtpmap:97 telephone-event/8000\r\n");
    assert_eq!(agreed.events_out, None, "mapped but not offered");
}

#[test]
fn hold_in_all_its_shapes() {
    let cases = [
        ("a=sendonly\r\n", Direction::RecvOnly, true),
        ("a=recvonly\r\n", Direction::SendOnly, true),
        ("a=inactive\r\n", Direction::Inactive, true),
        ("c=IN IP4 0.0.0.0\r\n", Direction::RecvOnly, false),
        ("c=IN IP4 0.0.0.0\r\na=inactive\r\n", Direction::Inactive, false),
        ("c=IN IP6 ::\r\n", Direction::RecvOnly, false),
        ("c=IN IP4 0.0.0.0\r\na=recvonly\r\n", Direction::Inactive, false),
    ];
    for (lines, direction, has_remote) in cases {
        let (text, agreed) = answered(&format!("m=audio 5000 RTP/AVP 0\r\n{lines}"));
        assert_eq!((agreed.direction, agreed.remote.is_some()), (direction, has_remote), "{lines}");
        assert!(text.contains(&format!("a={}\r\n", direction.attribute())), "{text}");
    }
    let (text, agreed) = answered("m=audio 0 RTP/AVP 0\r\n");
    assert_eq!((agreed.remote, agreed.direction), (None, Direction::Inactive));
    assert!(text.contains("m=audio 0 "));
    let session = b"v=0\r\no=x 1 1 IN IP4 1.2.3.4\r\ns=-\r\nc=IN IP4 1.2.3.4\r\nt=0 0\r\n\
        a=sendonly\r\nm=audio 5000 RTP/AVP 0\r\n";
    assert_eq!(answer(session, &local()).unwrap().1.direction, Direction::RecvOnly);
}

#[test]
fn rtcp_goes_where_the_peer_says_and_is_muxed_only_if_it_offers_to() {
    let apart = |text: &str| Some(Rtcp::Apart(text.parse().unwrap()));
    for (lines, rtcp) in [
        ("", apart("192.0.2.4:5001")),
        ("a=rtcp:6001\r\n", apart("192.0.2.4:6001")),
        ("a=rtcp:6001 IN IP4 192.0.2.9\r\n", apart("192.0.2.9:6001")),
        ("a=rtcp:6001 IN IP6 2001:db8::9\r\n", apart("[2001:db8::9]:6001")),
        ("a=rtcp:0\r\n", apart("192.0.2.4:5001")),
        ("a=rtcp:x IN IP4 y\r\n", apart("192.0.2.4:5001")),
        ("a=rtcp:6001 IN IP4 224.0.0.1\r\n", apart("192.0.2.4:5001")),
        ("a=rtcp:5000\r\na=rtcp-mux\r\n", Some(Rtcp::Muxed)),
        ("b=RS:0\r\nb=RR:0\r\n", None),
        ("b=RS:0\r\nb=RR:300\r\n", apart("192.0.2.4:5001")),
        ("b=RS:0\r\nb=RR:0\r\na=rtcp-mux\r\n", None),
        ("c=IN IP4 0.0.0.0\r\na=rtcp-mux\r\n", None),
    ] {
        let (text, agreed) = answered(&format!("m=audio 5000 RTP/AVP 0\r\n{lines}"));
        assert_eq!(agreed.rtcp, rtcp, "{lines}");
        assert_eq!(text.contains("a=rtcp-mux\r\n"), lines.contains("rtcp-mux"), "{text}");
    }
    let (_, agreed) = answered("m=audio 65535 RTP/AVP 0\r\n");
    assert_eq!(agreed.rtcp, None, "there is no port above it");
    assert!(!text_of(offer(&local())).contains("rtcp"));
    // What we have not offered is not agreed on, whatever the answer says.
    let agreed = accept(&sdp("m=audio 6000 RTP/AVP 0\r\na=rtcp-mux\r\n"), &local()).unwrap();
    assert_eq!(agreed.rtcp, apart("192.0.2.4:6001"));
}

#[test]
fn the_first_of_our_codecs_that_they_offer_is_taken_again_in_each_re_invite() {
    let ours = |codecs: &[Codec]| Local { codecs: codecs.to_vec(), ..local() };
    let offers = [("9 8 0", Codec::Pcma), ("0 9", Codec::Pcmu), ("8", Codec::Pcma)];
    for (formats, codec) in offers {
        let line = format!("m=audio 5000 RTP/AVP {formats}\r\n");
        let (bytes, agreed) = answer(&sdp(&line), &ours(&[Codec::Pcma, Codec::Pcmu])).unwrap();
        assert_eq!(agreed.codec, codec, "{formats}");
        let text = text_of(bytes);
        assert!(text.contains(&format!("m=audio 4000 RTP/AVP {}\r\n", codec.payload_type())));
    }
    #[cfg(feature = "g722")]
    {
        let all = ours(&[Codec::G722, Codec::Pcmu, Codec::Pcma]);
        assert!(text_of(offer(&all)).contains("m=audio 4000 RTP/AVP 9 0 8 101\r\n"));
        let wide = sdp("m=audio 5000 RTP/AVP 0 9 101\r\na=rtpmap:9 G722/8000\r\n\
                        a=rtpmap:101 telephone-event/8000\r\n");
        let (bytes, agreed) = answer(&wide, &all).unwrap();
        assert_eq!((agreed.codec, agreed.events_out), (Codec::G722, Some((101, 8000))));
        assert!(text_of(bytes).contains("a=rtpmap:9 G722/8000\r\n"));
        assert_eq!(accept(&wide, &all).unwrap().codec, Codec::Pcmu, "their first");
        assert_eq!(answer(&wide, &local()).unwrap().1.codec, Codec::Pcmu, "the profile's only");
    }
}

#[test]
fn comfort_noise_is_agreed_on_only_where_both_want_it() {
    let noisy = Local { silence: Silence::ComfortNoise, ..local() };
    let quiet = Local { silence: Silence::Nothing, ..local() };
    let (with, without) = (sdp("m=audio 5000 RTP/AVP 0 13\r\n"), sdp("m=audio 5000 RTP/AVP 0\r\n"));
    for (local, offer, silence) in [
        (&noisy, &with, Silence::ComfortNoise),
        (&noisy, &without, Silence::Packets),
        (&quiet, &with, Silence::Nothing),
        (&local(), &with, Silence::Packets),
    ] {
        let (bytes, agreed) = answer(offer, local).unwrap();
        assert_eq!(agreed.silence, silence);
        let text = text_of(bytes);
        assert_eq!(text.contains("RTP/AVP 0 13\r\n"), silence == Silence::ComfortNoise, "{text}");
        assert_eq!(text.contains("a=rtpmap:13 CN/8000"), silence == Silence::ComfortNoise);
    }
    assert!(text_of(offer(&noisy)).contains("m=audio 4000 RTP/AVP 0 8 13 101\r\n"));
    assert_eq!(accept(&with, &noisy).unwrap().silence, Silence::ComfortNoise);
    assert_eq!(accept(&without, &noisy).unwrap().silence, Silence::Packets);
}

#[test]
fn ipv6_and_media_level_connection() {
    let (_, agreed) = answered("m=audio 5000 RTP/AVP 8\r\nc=IN IP6 2001:db8::7\r\n");
    assert_eq!(agreed.remote, Some("[2001:db8::7]:5000".parse().unwrap()));
    let six = Local { address: "2001:db8::1".parse().unwrap(), ..local() };
    let text = String::from_utf8(offer(&six)).unwrap();
    assert!(text.contains("c=IN IP6 2001:db8::1\r\n"));
}

#[test]
fn refusals_say_why() {
    let status = |media: &str| answer(&sdp(media), &local()).unwrap_err();
    assert!(
        matches!(status("m=audio 5000 RTP/SAVP 0\r\n"), Refusal::NoCommonCodec(w) if w.contains("SRTP"))
    );
    assert_eq!(status("m=audio 5000 RTP/AVP 18\r\n").status(), 488);
    assert_eq!(status("m=audio 5000 RTP/AVP 0\r\na=rtpmap:0 OPUS/48000\r\n").status(), 488);
    assert_eq!(status("m=audio 5000 RTP/AVP 0\r\nc=IN IP4 224.2.1.1\r\n").status(), 488);
    assert_eq!(status("").status(), 488);
    assert_eq!(status("m=audio\r\n").status(), 400);
    assert_eq!(answer(b"\xff\xfe", &local()).unwrap_err().status(), 400);
    let no_connection = b"v=0\r\no=x 1 1 IN IP4 1.2.3.4\r\ns=-\r\nt=0 0\r\nm=audio 5 RTP/AVP 0\r\n";
    assert_eq!(answer(no_connection, &local()).unwrap_err().status(), 400);
}

#[test]
fn our_offer_and_answers_to_it() {
    let text = String::from_utf8(offer(&local())).unwrap();
    assert!(text.contains("m=audio 4000 RTP/AVP 0 8 101\r\n"), "{text}");
    let other_type = sdp("m=audio 6000 RTP/AVP 8 120\r\na=rtpmap:120 telephone-event/8000\r\n");
    let agreed = accept(&other_type, &local()).unwrap();
    assert_eq!((agreed.codec, agreed.direction), (Codec::Pcma, Direction::SendRecv));
    assert_eq!((agreed.events_out, agreed.events_in), (Some((120, 8000)), Some((101, 8000))));
    assert_eq!(accept(&sdp("m=audio 0 RTP/AVP 0\r\n"), &local()).unwrap_err().status(), 488);
    assert_eq!(accept(&sdp("m=audio 9 RTP/AVP 18\r\n"), &local()).unwrap_err().status(), 488);
    let held = accept(&sdp("m=audio 9 RTP/AVP 0\r\na=recvonly\r\n"), &local()).unwrap();
    assert_eq!((held.direction, held.events_in), (Direction::SendOnly, None));
    let both = answer(&offer(&local()), &local()).unwrap();
    assert_eq!(accept(&both.0, &local()).unwrap().events_out, Some((101, 8000)));
}

#[test]
fn latin_1_in_the_session_name_is_harmless() {
    let mut bytes = sdp("m=audio 5000 RTP/AVP 0\r\n");
    let at = bytes.windows(3).position(|w| w == b"s=-").unwrap() + 2;
    bytes[at] = 0xfc;
    assert!(answer(&bytes, &local()).is_ok());
}

const KEY: &str = "inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

fn with(srtp: SrtpPolicy) -> Local {
    Local { srtp, ..local() }
}

fn secure(port: u16) -> String {
    format!(
        "m=audio {port} RTP/SAVP 0 8\r\na=crypto:1 AES_256_CM_HMAC_SHA1_80 {KEY}\r\n\
         a=crypto:2 AES_CM_128_HMAC_SHA1_80 {KEY}|2^31|1:4\r\n\
         a=crypto:4 AES_CM_128_HMAC_SHA1_32 {KEY}|2^31\r\n"
    )
}

const PLAIN_LINE: &str = "m=audio 5002 RTP/AVP 0 8\r\n";

fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn savp_is_answered_as_savp_with_the_tag_of_the_first_line_we_can_take() {
    for policy in [SrtpPolicy::Optional, SrtpPolicy::Required] {
        let (bytes, agreed) = answer(&sdp(&secure(5000)), &with(policy)).unwrap();
        let text = text_of(bytes);
        assert!(text.contains("m=audio 4000 RTP/SAVP 0\r\n"), "{text}");
        let ours = local().keys.key(Suite::Cm32);
        let line = Line { tag: 4, key: ours.clone() }.written();
        assert!(text.contains(&format!("a=crypto:{line}\r\n")), "{text}");
        assert_eq!(text.matches("a=crypto").count(), 1);
        assert!(secured(&agreed));
        let keys = agreed.srtp.unwrap();
        assert_eq!((keys.ours, keys.theirs.expose_key()), (ours, &b"wDfvg&T+)xG7@fb5"[..]));
    }
}

#[test]
fn of_best_effort_srtp_the_policy_takes_one_line() {
    for lines in [secure(5000) + PLAIN_LINE, PLAIN_LINE.to_string() + &secure(5000)] {
        for (policy, profile) in [
            (SrtpPolicy::Off, "RTP/AVP"),
            (SrtpPolicy::Optional, "RTP/SAVP"),
            (SrtpPolicy::Required, "RTP/SAVP"),
        ] {
            let (bytes, agreed) = answer(&sdp(&lines), &with(policy)).unwrap();
            let text = text_of(bytes);
            let offered = lines.lines().filter(|line| line.starts_with("m="));
            let answered = text.lines().filter(|line| line.starts_with("m="));
            for (theirs, ours) in offered.zip(answered) {
                let taken = theirs.contains(&format!("{profile} "));
                let start = if taken { "m=audio 4000 " } else { "m=audio 0 " };
                assert!(ours.starts_with(start), "{policy:?}: {theirs} -> {ours}");
            }
            assert_eq!(secured(&agreed), profile == "RTP/SAVP");
        }
    }
}

#[test]
fn what_the_policy_does_not_allow_is_refused_with_488() {
    let no_line = "m=audio 5000 RTP/SAVP 0\r\na=crypto:1 F8_128_HMAC_SHA1_80 inline:x\r\n";
    let webrtc = secure(5000).replace("RTP/SAVP", "RTP/SAVPF");
    for (policy, lines, why) in [
        (SrtpPolicy::Off, secure(5000).as_str(), "SRTP (RTP/SAVP), which is off"),
        (SrtpPolicy::Required, PLAIN_LINE, "secure media (RTP/SAVP) is required here"),
        (SrtpPolicy::Required, no_line, "AEAD_AES_128_GCM"),
        (SrtpPolicy::Optional, no_line, "no a=crypto line we can take"),
        (SrtpPolicy::Optional, &webrtc, "RTP/SAVPF"),
        (SrtpPolicy::Required, "m=audio 5000 RTP/AVP 18\r\n", "required"),
        (SrtpPolicy::Required, &secure(5000).replace("SAVP 0 8", "SAVP 18"), "none of the codecs"),
    ] {
        let refusal = answer(&sdp(lines), &with(policy)).unwrap_err();
        assert!(refusal.to_string().contains(why), "{policy:?}: {refusal}");
        assert_eq!(refusal.status(), 488);
    }
    let broken_then_plain = no_line.to_string() + PLAIN_LINE;
    let (_, agreed) = answer(&sdp(&broken_then_plain), &with(SrtpPolicy::Optional)).unwrap();
    assert_eq!((secured(&agreed), agreed.remote.unwrap().port()), (false, 5002));
}

#[test]
fn a_secure_offer_of_ours_and_answers_to_it() {
    let (us, them) = (with(SrtpPolicy::Required), Local { port: 9, ..with(SrtpPolicy::Optional) });
    let them = Local { keys: SrtpSeed::new([8; 32]), ..them };
    let text = text_of(offer(&us));
    assert!(text.contains("m=audio 4000 RTP/SAVP 0 8 101\r\n"), "{text}");
    assert_eq!(text.matches("a=crypto:").count(), 3);
    assert!(!text_of(offer(&them)).contains("SAVP"));
    let (answer, theirs) = answer(text.as_bytes(), &them).unwrap();
    let ours = accept(&answer, &us).unwrap();
    let (ours, theirs) = (ours.srtp.unwrap(), theirs.srtp.unwrap());
    assert_eq!((&ours.ours, &ours.theirs), (&theirs.theirs, &theirs.ours));
    let answer = text_of(answer);
    for (from, to) in [
        ("a=crypto:1 AES_CM_128_HMAC_SHA1_80", "a=crypto:2 AES_CM_128_HMAC_SHA1_80"),
        ("RTP/SAVP", "RTP/AVP"),
        ("inline:", "inline:A"),
    ] {
        let changed = answer.replacen(from, to, 1);
        assert_ne!(changed, answer);
        assert_eq!(accept(changed.as_bytes(), &us).unwrap_err().status(), 488, "{to}");
    }
    assert_eq!(accept(answer.as_bytes(), &them).unwrap_err().status(), 488, "never offered");
}

#[test]
fn keys_stay_over_a_re_invite_and_hold_keeps_them() {
    let (bytes, before) = answer(&sdp(&secure(5000)), &with(SrtpPolicy::Optional)).unwrap();
    let held = secure(5000) + "a=sendonly\r\n";
    let (again, after) = answer(&sdp(&held), &with(SrtpPolicy::Optional)).unwrap();
    assert_eq!((before.srtp, after.direction), (after.srtp, Direction::RecvOnly));
    let line = |bytes: Vec<u8>| text_of(bytes).split("a=crypto").nth(1).unwrap()[..60].to_string();
    assert_eq!(line(bytes), line(again));
}
