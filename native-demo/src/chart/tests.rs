use super::{Chart, ColourBar, GalleryRow, Panel, Series, gallery, lines, panels, stacked_bars, table, ticks::Axis};

fn named(name: &str, points: &[(f64, f64)]) -> Series {
    Series { name: name.to_owned(), points: points.to_vec(), right_axis: false }
}

#[test]
fn what_cannot_be_drawn_is_left_out() {
    let odd = [(f64::NAN, 1.0), (0.0, f64::INFINITY), (1.0, -f64::MAX)];
    let right = Series { right_axis: true, ..named("right", &[(0.0, 5.0)]) };
    for series in [vec![], vec![named("none", &[])], vec![named("odd", &odd)], vec![right, named("one", &[(3.0, 3.0)])]]
    {
        let chart = lines("a title", "x", "y", None, &series).expect("a chart");
        assert_eq!(chart.rgb.len(), (chart.width * chart.height * 3) as usize);
        let panel = Panel { title: "panel".to_owned(), x_label: String::new(), series };
        panels("", &[panel]).expect("a panel");
    }
    let (long, crowd) = ("word ".repeat(400), vec!["a".repeat(99); 3000]);
    lines(&long, &long, &long, Some(&long), &[named(&long, &[(1.0, 1.0)])]).expect("a shortened chart");
    stacked_bars(&long, &long, &crowd, &[(long.clone(), vec![1e29; 3000])]).expect("a crowd");
    stacked_bars("", "", &[], &[]).expect("no bar");
    stacked_bars("", "", &["a".to_owned()], &[("p".to_owned(), vec![f64::NAN])]).expect("an empty bar");
    let chart = table("", &[], &["one"], &[]).expect("a header");
    assert!(chart.png().expect("a file").starts_with(b"\x89PNG"));
}

#[test]
fn errors_tell_what_was_expected_and_what_came() {
    let row = table("", &[], &["a", "b"], &[vec!["1".to_owned()]]).expect_err("a short row");
    assert_eq!(row, "row 1: expected 2 cells, one for each column, got 1");
    let part = stacked_bars("", "", &["a".to_owned()], &[("p".to_owned(), vec![])]).expect_err("a short part");
    assert_eq!(part, "part \"p\": expected 1 values, one for each category, got 0");
    let many = vec![named(&"long ".repeat(40), &[(0.0, 1.0)]); 200];
    lines("", "", "", None, &many).expect_err("a legend without end");
    panels("", &[]).expect_err("no panel");
    table("", &[], &["a"], &vec![vec!["b".to_owned()]; 100_000]).expect_err("too tall");
}

fn flat(width: u32, height: u32, colour: [u8; 3]) -> Chart {
    Chart { width, height, rgb: colour.repeat((width * height) as usize) }
}

#[test]
fn a_gallery_shows_every_pixel_of_its_pictures() {
    let row = |title: &str, pictures: Vec<Chart>| GalleryRow {
        title: title.to_owned(),
        pictures: pictures.into_iter().map(|picture| (picture, "below".to_owned())).collect(),
    };
    let bar = ColourBar {
        name: "a bar".to_owned(),
        colours: vec![[0, 0, 9], [0, 0, 8]],
        ticks: vec![(0.0, "least".to_owned()), (1.0, "most".to_owned()), (f32::NAN, "odd".to_owned())],
    };
    let columns = ["one".to_owned(), "a longer name".to_owned()];
    let rows = [
        row("first", vec![flat(30, 20, [1, 2, 3]), flat(7, 90, [4, 5, 6])]),
        row(&"second ".repeat(200), vec![flat(200, 10, [7, 8, 9])]),
    ];
    let chart = gallery("a title", &["a note ".repeat(60)], &bar, &columns, &rows).expect("a gallery");
    assert_eq!(chart.rgb.len(), (chart.width * chart.height * 3) as usize);
    let count = |colour: [u8; 3]| chart.rgb.as_chunks::<3>().0.iter().filter(|pixel| **pixel == colour).count();
    assert_eq!([[1, 2, 3], [4, 5, 6], [7, 8, 9]].map(count), [600, 630, 2000], "pixels (got, expected)");
    assert!(count([0, 0, 9]) > 1000 && count([0, 0, 8]) > 1000, "expected both halves of the bar");
    gallery("", &[], &ColourBar { name: String::new(), colours: vec![], ticks: vec![] }, &[], &[]).expect("nothing");
    let Err(crowd) = gallery("", &[], &bar, &columns[..1], &rows) else { panic!("expected a row too long refused") };
    assert_eq!(crowd, "row 1: expected 1 pictures at most, one for each column, got 2");
    let short = Chart { rgb: vec![0; 30 * 3 * 9000], ..flat(30, 20, [0; 3]) };
    let refused = gallery("", &[], &bar, &columns, &[row("", vec![short])]);
    assert!(refused.is_err(), "expected fewer pixels than a picture says refused");
}

#[test]
fn numbers_at_axes_are_round() {
    let written = |axis: &Axis| axis.ticks.iter().map(|tick| axis.label(*tick)).collect::<Vec<_>>();
    assert_eq!(written(&Axis::round([0.13, 0.91].into_iter(), 5.0)), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    assert_eq!(written(&Axis::tight([0.0, 38_000.0].into_iter(), 4.0)), ["0", "10k", "20k", "30k"]);
    assert_eq!(written(&Axis::round([0.0, 3e-4].into_iter(), 3.0)), ["0", "1e-4", "2e-4", "3e-4"]);
    let left = Axis::round([0.0, 1.0].into_iter(), 5.0);
    for (least, most) in [(0.0, 1e-9), (-3.0, 4.1), (1e15, 1e15 + 1.0), (-1e30, 1e30), (99.9, 100.1), (-1.0, 0.001)] {
        let right = Axis::beside([least, most].into_iter(), &left);
        assert_eq!(right.ticks.len(), left.ticks.len(), "{least} to {most}");
        let off = (right.to - right.from) * 1e-6;
        assert!(right.from <= least + off && right.to >= most - off, "{least} to {most}: {right:?}");
    }
}
