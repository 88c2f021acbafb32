use super::*;

const LONG: &str = "It was the best of times, it was the worst of times, it was the age of wisdom, \
                    it was the age of foolishness, it was the epoch of belief.";

fn segment(start: f64, end: f64, text: &str) -> Segment {
    let (text, speech) = (text.to_owned(), vec![(start, end)]);
    Segment { start, end, speech, text, tokens: 7, avg_logprob: Some(-0.25), ..Segment::default() }
}

fn transcript() -> Transcript {
    Transcript {
        file: "talk.wav".into(),
        duration: 3700.0,
        segments: vec![
            segment(0.52, 2.0, "Hello <b>there</b> & all --> go."),
            segment(2.0, 30.0, LONG),
            segment(31.0, 32.0, ""),
            Segment { truncated: true, ..segment(3661.5, 3663.25, "Wir gehen über die Brücke.") },
        ],
        ..Transcript::default()
    }
}

#[test]
fn subrip_is_read_by_another_parser() {
    let text = whole(Format::Srt, &transcript());
    let read = srtlib::Subtitles::parse_from_str(text.clone()).unwrap().to_vec();
    assert_eq!(read.len(), 4, "{text}");
    assert_eq!(read[0].text, "Hello <b>there</b> & all -> go.");
    let times = |at: usize| (read[at].start_time.get(), read[at].end_time.get());
    assert_eq!(times(0), ((0, 0, 0, 520), (0, 0, 2, 0)));
    assert_eq!(times(3), ((1, 1, 1, 500), (1, 1, 3, 250)));
    assert_eq!(read[3].text, "Wir gehen über die Brücke. [...]");
    let both = format!("{} {}", read[1].text, read[2].text).replace('\n', " ");
    assert_eq!(both, LONG);
    let numbers: Vec<usize> = read.iter().map(|subtitle| subtitle.num).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(read.windows(2).all(|pair| pair[0].end_time <= pair[1].start_time));
}

#[test]
fn webvtt_is_read_by_another_parser() {
    let text = whole(Format::Vtt, &transcript());
    let read = webvtt_parser::Vtt::parse(&text).unwrap();
    assert_eq!(read.cues.len(), 4, "{text}");
    assert_eq!(read.cues[0].text.trim(), "Hello &lt;b&gt;there&lt;/b&gt; &amp; all -&gt; go.");
    assert_eq!(read.cues[3].start.as_milliseconds(), 3_661_500);
    assert_eq!(read.cues[3].end.as_milliseconds(), 3_663_250);
}

#[test]
fn a_table_a_song_and_a_text() {
    let table = whole(Format::Tsv, &transcript());
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0], ["start", "end", "text"]);
    assert_eq!(rows[1], ["520", "2000", "Hello <b>there</b> & all --> go."]);
    assert_eq!(rows[3][..2], ["3661500", "3663250"]);
    let song = whole(Format::Lrc, &transcript());
    assert_eq!(song.lines().next(), Some("[00:00.52]Hello <b>there</b> & all --> go."));
    assert_eq!(song.lines().last(), Some("[61:01.50]Wir gehen über die Brücke. [...]"));
    let text = whole(Format::Txt, &transcript());
    assert_eq!(text.lines().count(), 3);
    assert!(text.ends_with("Brücke. [...]\n"));
}

#[test]
fn json_has_everything() {
    let mut transcript = transcript();
    let entry: serde_json::Value = serde_json::from_str(&whole(Format::Json, &transcript)).unwrap();
    let keys: Vec<&String> = entry.as_object().unwrap().keys().collect();
    let expected = ["file", "duration", "language", "segments", "text", "partial", "timings"];
    assert_eq!(keys, expected);
    let first = &entry["segments"][0];
    assert_eq!((first["start"].as_f64(), first["speech"][0][1].as_f64()), (Some(0.52), Some(2.0)));
    assert_eq!((first["avg_logprob"].as_f64(), first["tokens"].as_u64()), (Some(-0.25), Some(7)));
    assert_eq!(entry["segments"][2]["text"], "");
    assert_eq!(entry["segments"][3]["truncated"], true);
    assert_eq!(entry["segments"][3]["text"], "Wir gehen über die Brücke.");
    assert_eq!(entry["text"], whole(Format::Txt, &transcript).trim_end());

    let lines = whole(Format::Jsonl, &transcript);
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0].as_object().unwrap().keys().next().unwrap(), "file");
    assert_eq!(lines[3]["end"], 3663.25);
    transcript.partial = true;
    let lines = whole(Format::Jsonl, &transcript);
    assert_eq!(lines.lines().last(), Some(r#"{"file":"talk.wav","partial":true}"#));
}

#[test]
fn nothing_said_is_still_a_file() {
    let silence = Transcript { file: "a".into(), ..Transcript::default() };
    assert_eq!(whole(Format::Txt, &silence), "");
    assert_eq!(whole(Format::Vtt, &silence), "WEBVTT\n\n");
    let entry: serde_json::Value = serde_json::from_str(&whole(Format::Json, &silence)).unwrap();
    assert_eq!(entry["segments"], serde_json::json!([]));
}
