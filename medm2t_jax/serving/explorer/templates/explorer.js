'use strict';
(() => {
  const story = JSON.parse(document.getElementById('story').textContent);
  const SVG = 'http://www.w3.org/2000/svg';
  const MINUS = '\u2212';
  const byId = (id) => document.getElementById(id);
  const last = story.moments.length - 1;
  let at = last; // the moment that is shown
  let shown = story.headline; // the output that is shown
  const onMoment = []; // what follows the slider

  // Elements. Text of the data is only ever set as text.

  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function draw(name, attributes = {}, text = '') {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text) element.textContent = text;
    return element;
  }

  function canvas(width, height, label, extra = '') {
    return draw('svg', {
      viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': label,
      class: extra,
    });
  }

  // Numbers.

  function rounded(value, digits = 3) {
    if (value === 0) return '0';
    const size = Math.floor(Math.log10(Math.abs(value)));
    const places = Math.max(0, Math.min(4, digits - 1 - size));
    return value.toFixed(places).replace('-', MINUS);
  }
  const signed = (value) => (value > 0 ? '+' : '') + rounded(value, 2);
  const side = (value) => (value > 0 ? 'raises' : value < 0 ? 'lowers' : 'neither');
  const plain = (value) => String(Number(value.toPrecision(4))).replace('-', MINUS);
  const ofOutput = (value) => (story.numeric ? plain(value) : `${plain(100 * value)}\u00a0%`);

  function niceSteps(low, high, count) {
    const rough = (high - low) / Math.max(1, count);
    if (!(rough > 0)) return [low];
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
    return found;
  }

  function timeSteps(count) {
    const unit = story.axis.hours;
    const extent = -story.axis.begin / unit;
    const steps = story.axis.unit === 'hours' ? [0.25, 0.5, 1, 2, 3, 6, 12, 24, 48]
      : [0.5, 1, 2, 5, 10, 20, 50, 100];
    const step = steps.find((each) => extent / each <= count) || extent / count;
    const found = [];
    for (let k = 0; k * step <= extent + 1e-9; k++) found.push(-k * step);
    return found;
  }

  // A plot over time. `place` maps hours to x.

  function timePlot(width, height, label, left, right = 12) {
    const svg = canvas(width, height, label);
    const bottom = height - 20;
    const begin = Math.min(story.axis.begin, -1e-6);
    const place = (hours) => left + (width - left - right) * (1 - hours / begin);
    const axis = draw('path', {class: 'axis', d: `M${left} ${bottom}H${width - right}`});
    svg.append(axis);
    const ticks = timeSteps(Math.max(2, Math.floor((width - left) / 58)));
    ticks.forEach((tick) => {
      const x = place(tick * story.axis.hours);
      svg.append(draw('path', {class: 'axis', d: `M${x} ${bottom}v4`}));
      const text = tick === 0 ? `0 ${story.axis.unit[0]}` : plain(tick);
      svg.append(draw('text', {x, y: bottom + 15, 'text-anchor': 'middle'}, text));
    });
    return {svg, place, bottom, left, right: width - right, height};
  }

  /** The moment as a line, and a veil over what it does not know. */
  function follow(plot, top) {
    const veil = draw('rect', {class: 'veil', y: top - 4, height: plot.bottom - top + 4});
    const now = draw('path', {class: 'now'});
    plot.svg.append(veil, now);
    const move = () => {
      const x = plot.place(story.moments[at].hours);
      veil.setAttribute('x', x);
      veil.setAttribute('width', Math.max(0, plot.right + 4 - x));
      now.setAttribute('d', `M${x} ${top - 4}V${plot.bottom}`);
    };
    onMoment.push(move);
    move();
  }

  // The prediction over time.

  function riskChart(width) {
    const of = story.outputs[shown];
    const plot = timePlot(width, 180, `${story.title} as of each moment`, 46);
    const hours = story.moments.map((each) => each.hours);
    const all = [...of.values, ...of.low, ...of.high];
    const low = story.numeric ? Math.min(...all) : 0;
    const high = Math.max(...all) > low ? low + 1.08 * (Math.max(...all) - low) : low + 1;
    const y = (value) => plot.bottom - ((value - low) / (high - low)) * (plot.bottom - 12);
    niceSteps(low, high, 4).forEach((tick) => {
      plot.svg.append(draw('path', {class: 'axis', d: `M${plot.left} ${y(tick)}H${plot.right}`}));
      plot.svg.append(draw('text', {x: plot.left - 6, y: y(tick) + 4, 'text-anchor': 'end'}, ofOutput(tick)));
    });
    const points = (values) => values.map((value, k) => `${plot.place(hours[k])} ${y(value)}`);
    if (story.band) {
      const edge = [...points(of.high), ...points(of.low).reverse()];
      plot.svg.append(draw('path', {class: 'spread', d: `M${edge.join('L')}Z`}));
    }
    plot.svg.append(draw('path', {class: 'risk', d: `M${points(of.values).join('L')}`}));
    follow(plot, 12);
    const here = draw('circle', {class: 'here', r: 6});
    plot.svg.append(here);
    const move = () => {
      here.setAttribute('cx', plot.place(hours[at]));
      here.setAttribute('cy', y(of.values[at]));
    };
    onMoment.push(move);
    move();
    return plot.svg;
  }

  // The slider.

  function showMoment() {
    const of = story.outputs[shown];
    const moment = story.moments[at];
    byId('risk').textContent = of.texts[at];
    byId('when').textContent = moment.text;
    if (story.band) byId('band').textContent = `Ensemble: ${of.bands[at]}`;
    byId('place').textContent = at === last ? of.among_tests.sentences[0] : '';
    const slider = byId('as-of');
    if (slider) {
      slider.value = at;
      slider.setAttribute('aria-valuetext', `${moment.text}: ${of.texts[at]}`);
      byId('moment').textContent = moment.text;
      byId('risk-again').textContent = of.texts[at];
      byId('earlier').disabled = at === 0;
      byId('later').disabled = at === last;
    }
    document.querySelectorAll('#outputs output').forEach((each, k) => {
      each.textContent = story.outputs[k].texts[at];
    });
    onMoment.forEach((each) => each());
  }

  function setMoment(to) {
    at = Math.max(0, Math.min(last, to));
    showMoment();
  }

  function connect() {
    const slider = byId('as-of');
    if (slider) {
      slider.addEventListener('input', () => setMoment(Number(slider.value)));
      byId('earlier').addEventListener('click', () => setMoment(at - 1));
      byId('later').addEventListener('click', () => setMoment(at + 1));
    }
    const outputs = byId('outputs');
    if (!outputs) return;
    story.outputs.forEach((each, k) => {
      const radio = make('input', {type: 'radio', name: 'output'});
      radio.checked = k === shown;
      radio.addEventListener('change', () => {
        shown = k;
        byId('what').textContent = story.numeric ? 'Predicted' : `Predicted risk: ${each.name}`;
        render();
      });
      outputs.append(make('label', {}, radio, `${each.name} `, make('output', {}, each.texts[at])));
    });
  }

  // Among the test samples.

  function tests(width) {
    const of = story.outputs[shown];
    const found = of.among_tests;
    const value = of.values[last];
    const parts = found.sentences.map((each) => make('p', {}, each));
    const pair = make('div', {class: 'pair'});
    const wide = Math.min(width, 480);
    if (found.percentiles.length) pair.append(make('figure', {style: 'margin:0'}, rug(found.percentiles, value, wide)));
    if (found.curve.length) pair.append(make('figure', {style: 'margin:0'}, calibration(found.curve, value, wide)));
    return [...parts, pair];
  }

  function scale(low, high, from, to) {
    return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
  }

  function rug(percentiles, value, width) {
    const svg = canvas(width, 92, 'Predictions of the test samples, and this one');
    const low = story.numeric ? Math.min(percentiles[0], value) : 0;
    const high = Math.max(...percentiles, value);
    const x = scale(low, high, 16, width - 24);
    svg.append(draw('text', {x: 16, y: 14}, 'Test samples: each line is one in a hundred'));
    percentiles.forEach((each) => svg.append(draw('path', {class: 'rug', d: `M${x(each)} 28v30`})));
    svg.append(draw('path', {class: 'sample', d: `M${x(value)} 22v42`}));
    svg.append(draw('path', {class: 'axis', d: `M16 64H${width - 24}`}));
    niceSteps(low, high, 4).forEach((tick) => {
      svg.append(draw('text', {x: x(tick), y: 80, 'text-anchor': 'middle'}, ofOutput(tick)));
    });
    return svg;
  }

  function calibration(curve, value, width) {
    const height = 210;
    const svg = canvas(width, height, 'Predicted and observed among the test samples');
    const numbers = curve.flatMap((each) => [each.predicted, each.observed]);
    const low = story.numeric ? Math.min(...numbers, value) : 0;
    const high = Math.max(...numbers, value) * 1.05;
    const x = scale(low, high, 52, width - 24);
    const y = scale(low, high, height - 40, 22);
    svg.append(draw('path', {class: 'axis', d: `M${x(low)} ${y(low)}L${x(high)} ${y(high)}`}));
    niceSteps(low, high, 3).forEach((tick) => {
      svg.append(draw('text', {x: x(tick), y: height - 24, 'text-anchor': 'middle'}, ofOutput(tick)));
      svg.append(draw('text', {x: 46, y: y(tick) + 4, 'text-anchor': 'end'}, ofOutput(tick)));
    });
    svg.append(draw('text', {x: 8, y: 12}, story.numeric ? 'True mean' : 'Observed share'));
    svg.append(draw('text', {x: width - 24, y: height - 6, 'text-anchor': 'end'}, 'Predicted'));
    svg.append(draw('path', {class: 'sample', d: `M${x(value)} ${y(low)}v7`}));
    const gap = (each) => Math.abs(each.predicted - value);
    const nearest = curve.reduce((one, other) => (gap(other) < gap(one) ? other : one));
    curve.forEach((each) => {
      const point = draw('circle', {
        cx: x(each.predicted), cy: y(each.observed), r: each === nearest ? 6 : 4,
        class: each === nearest ? 'raises' : 'neither',
      });
      point.append(draw('title', {}, `${each.n} samples: predicted ${ofOutput(each.predicted)}, observed ${ofOutput(each.observed)}`));
      svg.append(point);
    });
    return svg;
  }

  // Contributions.

  function push(value, most) {
    const half = (50 * Math.abs(value)) / (most || 1);
    const gap = make('i', {style: `width:${value < 0 ? 50 - half : 50}%`});
    return make('div', {}, gap, make('i', {class: side(value), style: `width:${half}%`}));
  }

  function pushes(rows, caption) {
    const most = Math.max(...rows.map((each) => Math.abs(each.attribution)));
    const body = make('tbody', {}, ...rows.map((each) => {
      const value = each.value === null || each.value === undefined ? '' : `${plain(each.value)} ${each.unit}`.trim();
      return make('tr', {}, make('th', {scope: 'row', style: 'font-weight:400'}, each.name),
        make('td', {class: 'numeric'}, value), make('td', {class: 'push'}, push(each.attribution, most)),
        make('td', {class: 'numeric'}, signed(each.attribution)));
    }));
    return make('table', {class: 'wide'}, make('caption', {}, caption), body);
  }

  function momentChart(width) {
    const rows = story.contributions.by_moment;
    const plot = timePlot(width, 150, 'Contributions by moment', 46);
    const count = story.moments.length;
    const up = Array(count).fill(0), down = Array(count).fill(0);
    rows.forEach((row) => row.values.forEach((value, k) => {
      if (value > 0) up[k] += value; else down[k] += value;
    }));
    const y = scale(Math.min(...down, 0), Math.max(...up, 0), plot.bottom - 4, 10);
    const one = Math.max(3, Math.min(16, (0.7 * (plot.right - plot.left)) / count));
    const tops = Array(count).fill(0), feet = Array(count).fill(0);
    rows.forEach((row, number) => row.values.forEach((value, k) => {
      const edge = value > 0 ? tops : feet;
      const [from, to] = [edge[k], edge[k] + value];
      edge[k] = to;
      const top = Math.min(y(from), y(to));
      plot.svg.append(draw('rect', {
        x: plot.place(story.moments[k].hours) - one, y: top, width: one,
        height: Math.abs(y(from) - y(to)), style: `fill:var(--m${number % 6})`,
      }));
    }));
    plot.svg.append(draw('path', {class: 'axis', d: `M${plot.left} ${y(0)}H${plot.right}`}));
    [Math.max(...up), Math.min(...down)].filter((each) => Math.abs(each) > 0).forEach((tick) => {
      plot.svg.append(draw('text', {x: plot.left - 6, y: y(tick) + 4, 'text-anchor': 'end'}, signed(tick)));
    });
    follow(plot, 10);
    return plot.svg;
  }

  function contributions(width) {
    const of = story.contributions;
    const named = of.by_variable.map((each) => ({...each, name: `${each.name}, ${each.modality}`}));
    const few = 12;
    const found = [
      pushes(of.by_modality, 'By source of data'),
      make('h3', {}, 'By variable'),
      pushes(named.slice(0, few), `The ${Math.min(few, named.length)} that counted most; values are means of what was observed`),
    ];
    if (named.length > few) {
      found.push(make('details', {}, make('summary', {}, `All ${named.length} variables`), pushes(named.slice(few), 'The others')));
    }
    if (of.by_moment.length) {
      const legend = of.by_moment.map((row, k) => make('li', {}, make('i', {style: `background:var(--m${k % 6})`}), row.modality));
      found.push(make('h3', {}, 'By moment'),
        make('p', {class: 'soft'}, 'Of what the networks read, by when it was observed. What has no time, and what the simple models of the blend say, is above alone.'),
        momentChart(width), make('ul', {class: 'legend'}, ...legend));
    }
    return found;
  }

  function withoutTable() {
    const of = story.outputs;
    const head = make('tr', {}, make('th', {scope: 'col'}, 'Known'), ...of.map((each) => make('th', {scope: 'col', class: 'numeric'}, each.name)));
    const row = (name, texts) => make('tr', {}, make('th', {scope: 'row', style: 'font-weight:400'}, name), ...texts.map((each) => make('td', {class: 'numeric'}, each)));
    const rows = [row('everything', of.map((each) => each.texts[last])),
      ...story.without.map((each) => row(`without ${each.modality}`, each.texts))];
    return make('div', {class: 'scroll'}, make('table', {}, make('thead', {}, head), make('tbody', {}, ...rows)));
  }

  // Variables over time.

  function radius(attribution, most) {
    return 2.2 + 3 * Math.sqrt(Math.abs(attribution) / (most || 1));
  }

  function variable(of, width, most) {
    const numbers = !of.categories.length;
    const lanes = of.categories.length;
    const height = numbers ? 116 : 34 + 22 * lanes;
    const label = `${of.name}, ${of.values.length} observations`;
    const plot = timePlot(width, height, label, numbers ? 42 : 10);
    let y;
    if (numbers) {
      const low = Math.min(...of.values), high = Math.max(...of.values);
      const room = (high - low || Math.abs(high) || 1) * 0.12;
      y = scale(low - room, high + room, plot.bottom, 8);
      (low === high ? [low] : [low, high]).forEach((tick) => {
        plot.svg.append(draw('text', {x: 36, y: y(tick) + 4, 'text-anchor': 'end'}, plain(tick)));
        plot.svg.append(draw('path', {class: 'axis', d: `M${plot.left} ${y(tick)}H${plot.right}`}));
      });
    } else {
      y = (value) => 20 + 22 * of.categories.indexOf(value);
      of.categories.forEach((name) => {
        plot.svg.append(draw('path', {class: 'axis', d: `M${plot.left} ${y(name)}H${plot.right}`}));
        plot.svg.append(draw('text', {x: 10, y: y(name) - 6}, name));
      });
    }
    follow(plot, 8);
    const points = of.values.map((value, k) => {
      const point = draw('circle', {
        cx: plot.place(of.hours[k]), cy: y(value), r: radius(of.attributions[k], most),
        class: side(of.attributions[k]),
      });
      const told = numbers ? `${plain(value)} ${of.unit}` : value;
      point.append(draw('title', {}, `${told.trim()}, ${plain(of.hours[k] / story.axis.hours)} ${story.axis.unit}, contribution ${signed(of.attributions[k])}`));
      plot.svg.append(point);
      return point;
    });
    const latest = make('span', {class: 'latest'});
    const move = () => {
      const known = of.known[at];
      points.forEach((point, k) => point.classList.toggle('later', k >= known));
      const value = known ? of.values[known - 1] : null;
      latest.textContent = value === null ? 'not observed yet' : numbers ? `${plain(value)} ${of.unit}`.trim() : value;
    };
    onMoment.push(move);
    move();
    const caption = make('figcaption', {}, make('b', {}, of.name, ...limits(of)), latest);
    return make('figure', {}, caption, plot.svg);
  }

  function limits(of) {
    const told = of.low === null && of.high === null ? ''
      : of.low === null ? `, plausible up to ${plain(of.high)}`
      : of.high === null ? `, plausible from ${plain(of.low)}`
      : `, plausible ${plain(of.low)} to ${plain(of.high)}`;
    return [make('span', {class: 'limits'}, `${of.modality}${of.unit ? `, ${of.unit}` : ''}${told}`)];
  }

  function variables(width) {
    const columns = Math.max(1, Math.floor((width + 26) / (304 + 26)));
    const wide = (width - 26 * (columns - 1)) / columns;
    const few = 12;
    const most = Math.max(...story.variables.flatMap((each) => each.attributions.map(Math.abs)), 0);
    const grid = (some) => make('div', {class: 'variables'}, ...some.map((each) => variable(each, wide, most)));
    const found = [grid(story.variables.slice(0, few))];
    const more = story.variables.slice(few);
    if (more.length) found.push(make('details', {}, make('summary', {}, `The other ${more.length} variables`), grid(more)));
    if (!story.variables.length) found.push(make('p', {class: 'soft'}, 'Nothing with a time was observed.'));
    return found;
  }

  function constants() {
    if (!story.constant.length) return [];
    const rows = story.constant.flatMap((each) => {
      const [name, ...category] = each.name.split(': ');
      const told = each.value === null ? category.join(': ') : `${plain(each.value)} ${each.unit}`.trim();
      return [make('dt', {}, name), make('dd', {}, told)];
    });
    return [make('dl', {}, ...rows)];
  }

  // The ECG, on paper: 25 mm a second, 10 mm a millivolt.

  function paper(svg, width, height, id) {
    const defs = draw('defs');
    [['fine', 1], ['coarse', 5]].forEach(([name, size]) => {
      const pattern = draw('pattern', {id: `${id}-${name}`, width: size, height: size, patternUnits: 'userSpaceOnUse'});
      pattern.append(draw('path', {class: name, d: `M${size} 0H0V${size}`}));
      defs.append(pattern);
    });
    svg.append(defs, draw('rect', {class: 'paper', width, height}));
    ['fine', 'coarse'].forEach((name) => svg.append(draw('rect', {width, height, fill: `url(#${id}-${name})`})));
  }

  function strip(svg, lead, begin, end, x0, y0, most) {
    const ecg = story.ecg;
    const at_ = (second) => x0 + 25 * (second - begin);
    ecg.cells[lead].forEach((value, k) => {
      const from = k * ecg.cell_seconds;
      if (from < begin - 1e-9 || from >= end - 1e-9 || !value) return;
      svg.append(draw('rect', {
        class: side(value), x: at_(from), y: y0 - 12, height: 24, width: 25 * ecg.cell_seconds,
        opacity: 0.55 * Math.sqrt(Math.abs(value) / most),
      }));
    });
    const path = [];
    for (let k = Math.round(begin * ecg.rate); k < Math.min(end * ecg.rate, ecg.signal[lead].length); k++) {
      path.push(`${at_(k / ecg.rate).toFixed(2)} ${(y0 - 10 * ecg.signal[lead][k]).toFixed(2)}`);
    }
    svg.append(draw('path', {class: 'trace', d: `M${path.join('L')}`}));
    svg.append(draw('text', {class: 'lead', x: x0 + 1, y: y0 - 11}, ecg.leads[lead]));
  }

  function ecgSheet() {
    const ecg = story.ecg;
    const seconds = ecg.signal[0].length / ecg.rate;
    const rows = 3, quarter = seconds / 4, width = 25 * seconds, height = 4 * 30 + 5;
    const most = Math.max(...ecg.cells.flat().map(Math.abs)) || 1;
    const svg = draw('svg', {
      viewBox: `0 0 ${width} ${height}`, width: 1000, class: 'wide', role: 'img',
      'aria-label': 'Twelve leads, a quarter of the recording each, and lead II throughout',
    });
    paper(svg, width, height, 'sheet');
    ecg.leads.forEach((_, lead) => {
      const [column, row] = [Math.floor(lead / rows), lead % rows];
      strip(svg, lead, column * quarter, (column + 1) * quarter, column * 25 * quarter, 17 + 30 * row, most);
    });
    strip(svg, Math.max(0, ecg.leads.indexOf('II')), 0, seconds, 0, 17 + 90, most);
    return svg;
  }

  function ecgMap() {
    const ecg = story.ecg;
    const most = Math.max(...ecg.cells.flat().map(Math.abs)) || 1;
    const count = ecg.cells[0].length, one = 9, row = 13;
    const svg = canvas(40 + one * count, row * ecg.leads.length + 22, 'Contribution of each lead and tenth of a second', 'wide');
    ecg.leads.forEach((name, lead) => {
      svg.append(draw('text', {x: 34, y: row * lead + 11, 'text-anchor': 'end'}, name));
      ecg.cells[lead].forEach((value, k) => svg.append(draw('rect', {
        class: side(value), x: 40 + one * k, y: row * lead + 1, width: one, height: row - 2,
        opacity: Math.sqrt(Math.abs(value) / most),
      })));
    });
    for (let second = 0; second * 1 <= count * ecg.cell_seconds + 1e-6; second++) {
      svg.append(draw('text', {x: 40 + (one * second) / ecg.cell_seconds, y: row * ecg.leads.length + 16, 'text-anchor': 'middle'}, `${second} s`));
    }
    return svg;
  }

  function ecg() {
    const of = story.ecg;
    const count = of.all_hours.length;
    const said = make('p');
    const sheet = make('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'ECG on paper'}, ecgSheet());
    const map = make('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Contribution by lead and second'}, ecgMap());
    const move = () => {
      const known = of.known[at];
      const there = known === count;
      sheet.classList.toggle('unknown', !there);
      map.classList.toggle('unknown', !there);
      const when = `${plain(Number((-of.hours / story.axis.hours).toFixed(1)))} ${story.axis.unit} before the prediction time`;
      const which = count > 1 ? `The most recent of ${count} recordings, ${when}.` : `Recorded ${when}.`;
      said.textContent = there ? which : `${which} At the moment above ${known ? `only ${known} earlier recording(s) were` : 'it was not'} known.`;
    };
    onMoment.push(move);
    move();
    const rows = of.findings.map(([name, value, attribution]) => ({name, value, unit: '', attribution}));
    const table = rows.length ? [pushes(rows, 'Measurements and report terms of this recording')] : [];
    return [said, make('p', {class: 'soft small'}, '25 mm/s, 10 mm/mV, filtered as the model reads it. Shaded where the signal counted: orange raises the prediction, blue lowers it.'),
      sheet, make('h3', {}, 'All seconds of every lead'), map, ...table];
  }

  // All of it, at the width that there is.

  function fill(id, make_) {
    const place = byId(id);
    if (!place) return;
    const open = [...place.querySelectorAll('details')].map((each) => each.open);
    place.replaceChildren(...[make_(Math.max(240, place.clientWidth))].flat());
    place.querySelectorAll('details').forEach((each, k) => { each.open = Boolean(open[k]); });
  }

  function render() {
    onMoment.length = 0;
    fill('risk-chart', riskChart);
    fill('tests', tests);
    fill('contributions', contributions);
    fill('without', withoutTable);
    fill('constant', constants);
    fill('variables', variables);
    fill('ecg', ecg);
    showMoment();
  }

  connect();
  render();
  let width = innerWidth;
  addEventListener('resize', () => {
    if (innerWidth === width) return;
    width = innerWidth;
    render();
  });
})();
