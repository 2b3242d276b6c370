// The sequence diagram: one row for each message, drawn one after the other; a row opens and shows its HTTP.

import { has, link, say, sentence } from './text.js'
import { keysIn, Vault } from './vault.js'

const SVG = 'http://www.w3.org/2000/svg'
/** The place of each lifeline, in percent. Of the login of the mini program, and of the login of a website. */
const PLACES = {
  mini: { phone: 10, server: 37, wechat: 69, redis: 92 },
  scan: { phone: 8.5, laptop: 29.5, server: 53.5, wechat: 75.5, redis: 93 },
}
const PACE = 520

/** The story before the first click: from, to, and the labels of the arrows. */
const OUTLINE = {
  mini: [
    ['phone', 'wechat', 'wx.login()', 'code'], ['phone', 'server', 'code'], ['server', 'wechat', 'code, AppSecret', 'openid, session_key'],
    ['server', 'redis', 'session', ''], ['server', 'phone', 'token'],
  ],
  scan: [
    ['laptop', 'server', 'client_id', 'codes'], ['laptop', 'phone', 'scene'], ['phone', 'server', 'user_code', 'client, network'],
    ['phone', 'server', 'approve'], ['laptop', 'server', 'device_code', 'token'],
  ],
}

/** The part of the documentation about each scene. */
export const PAGES = {
  login: 'client', whoami: 'requests', logout: 'sessions', used: 'errcodes', busy: 'errcodes', blocked: 'errcodes', unlisted: 'unlisted',
  stalled: 'problems', limited: 'problems', expired: 'problems', forged: 'problems', gone: 'problems', banned: 'problems',
  second: 'sessions', elsewhere: 'sessions', two: 'sessions', number: 'data', stale: 'data',
  offer: 'website', late: 'website', fast: 'website', denied: 'users', both: 'users', guessed: 'users',
}

/** The lesson is below the diagram. */
const narrow = matchMedia('(max-width: 1020px)')
const still = matchMedia('(prefers-reduced-motion: reduce)')

export class Diagram {
  constructor() {
    this.list = document.getElementById('messages')
    this.steps = 0
    /** The chapters that have played their story. */
    this.told = new Set()
    this.sight = new IntersectionObserver((seen) => this.tell(seen.at(-1).isIntersecting), { threshold: .5 })
    addEventListener('resize', () => this.fit())
  }

  /** Fit the labels to the width, which a hidden diagram does not have. */
  fit() {
    fit(document.getElementById('diagram'))
  }

  /** Show the empty diagram of the chapter `mini` or `scan`. */
  stage(chapter) {
    this.places = PLACES[chapter]
    this.clear()
    document.querySelector('[data-actor=laptop]').hidden = chapter !== 'scan'
    document.getElementById('diagram').dataset.chapter = chapter
    const outline = document.getElementById('empty')
    outline.replaceChildren(...OUTLINE[chapter].map((message, place) => outlined(message, place + 1, chapter)))
    outline.hidden = false
    outline.classList.remove('plays')
    fit(outline)
    // It reports once more whether the outline is in view.
    this.sight.unobserve(outline)
    this.sight.observe(outline)
  }

  /** Play the story of the chapter when it is in view for the first time. */
  tell(inView) {
    const { chapter } = document.getElementById('diagram').dataset
    if (!inView || this.told.has(chapter)) return
    this.told.add(chapter)
    document.getElementById('empty').classList.add('plays')
  }

  /** Clear the diagram for a new scene. */
  begin(scene) {
    this.clear()
    Vault.mark()
    document.getElementById('empty').hidden = true
    this.entitle(scene)
    // The failures are below the diagram of a phone-sized window.
    if (narrow.matches) reveal(document.querySelector('.heading'))
  }

  clear() {
    this.list.replaceChildren()
    this.steps = 0
    document.getElementById('lesson').hidden = true
  }

  entitle(scene) {
    this.scene = scene
    say(document.getElementById('scene-title'), `scene.${scene}`)
    say(document.getElementById('scene-told'), `scene.${scene}.told`)
    for (const chip of document.querySelectorAll('[data-scene]')) {
      chip.setAttribute('aria-current', String(chip.dataset.scene === scene))
      if (chip.dataset.scene === scene) chip.closest('details')?.setAttribute('open', '')
    }
  }

  /** Draw messages in order. */
  async play(messages) {
    for (const message of messages) {
      const row = this.list.appendChild(this.row(message))
      fit(row)
      reveal(row)
      this.light(message)
      if (message.holds !== undefined) Vault.show(message.holds)
      // Only Redis messages change the content of Redis.
      message.after = Vault.holds
      await pause(message.minor ? PACE / 2 : PACE)
    }
    this.light(null)
  }

  /** Give the reader the time of `messages` messages. */
  pause(messages) {
    return pause(messages * PACE)
  }

  /** Add a line that is not a message: an act of the sandbox, or a pause. */
  aside(key, values) {
    const item = document.createElement('li')
    item.className = 'aside'
    say(item.appendChild(document.createElement('span')), key, values)
    this.list.append(item)
  }

  lesson(key) {
    const box = document.getElementById('lesson')
    say(document.getElementById('lesson-told'), has(`lesson.${key}`) ? `lesson.${key}` : 'lesson.other')
    link(document.getElementById('lesson-page'), `page.${PAGES[this.scene]}`)
    box.hidden = false
    if (narrow.matches) reveal(box)
  }

  light(message) {
    for (const actor of document.querySelectorAll('[data-actor]')) {
      actor.classList.toggle('lit', message !== null && [message.from, message.to].includes(actor.dataset.actor))
    }
  }

  row(message) {
    const item = document.createElement('li')
    item.className = ['message', message.wrong && 'wrong', message.minor && 'minor', message.lost && 'lost', message.second && 'second', isSingle(message) && 'single']
      .filter(Boolean).join(' ')
    const button = item.appendChild(document.createElement('button'))
    button.type = 'button'
    button.className = 'row'
    button.setAttribute('aria-expanded', 'false')
    button.append(strip(message, message.minor ? '' : ++this.steps, this.places), caption(message))
    button.addEventListener('click', () => toggle(item, button, message))
    return item
  }
}

function reveal(element) {
  element.scrollIntoView({ block: 'nearest', behavior: still.matches ? 'auto' : 'smooth' })
}

/** Only one arrow is drawn. */
function isSingle({ minor, back }) {
  return minor || back === undefined
}

function outlined([from, to, out, back], step, chapter) {
  const item = document.createElement('li')
  item.className = isSingle({ back }) ? 'row single' : 'row'
  item.style.setProperty('--step', step)
  item.append(strip({ from, to, out, back }, step, PLACES[chapter]))
  const box = item.appendChild(document.createElement('span'))
  box.className = 'caption'
  say(box.appendChild(document.createElement('span')), `outline.${chapter}.${step}`).className = 'told'
  return item
}

function strip(message, step, places) {
  const svg = draw('svg', { class: 'strip', 'aria-hidden': 'true', focusable: 'false' })
  const [from, aim] = [places[message.from], places[message.to]]
  const to = message.lost ? (from + aim) / 2 : aim
  const { back } = message.minor ? {} : message
  const there = message.minor ? 22 : back === undefined ? 32 : 20
  svg.append(...lifelines(places))
  svg.append(arrow(from, to, there, message.out, 'out', message.wrong && back === undefined))
  if (back !== undefined) svg.append(arrow(to, from, 44, back, 'back', message.wrong))
  svg.append(draw('circle', { class: message.wrong && back === undefined ? 'origin failed' : 'origin', cx: `${from}%`, cy: there, r: step === '' ? 3 : 10 }))
  svg.append(draw('text', { class: 'step', x: `${from}%`, y: there + 4 }, String(step)))
  return svg
}

function lifelines(places) {
  return Object.values(places).map((place) => draw('line', { class: 'life', x1: `${place}%`, x2: `${place}%`, y1: 0, y2: '100%' }))
}

function arrow(from, to, height, label, kind, failed) {
  const group = draw('g', { class: failed ? 'failed' : '' })
  const line = draw('line', { class: kind, x1: `${from}%`, x2: `${to}%`, y1: height, y2: height, pathLength: 1 })
  const tip = draw('svg', { x: `${to}%`, y: height, class: 'tip' })
  const back = to > from ? -7 : 7
  tip.append(draw('path', { d: `M${back} -4 L0 0 L${back} 4` }))
  const packet = draw('circle', { class: `packet ${kind === 'back' ? 'late' : ''}`, cy: height, r: 4 })
  packet.style.setProperty('--from', `${from}%`)
  packet.style.setProperty('--to', `${to}%`)
  group.append(line, tip, load(from, to, height, label, kind), packet)
  return group
}

/** The label above an arrow. A long label starts after the number of the step. */
function load(from, to, height, label, kind) {
  const room = Math.abs(to - from)
  const place = kind === 'out' && (room < 15 || (label.length > 8 && room < 35))
    ? { x: `${from}%`, dx: to > from ? 14 : -14, 'text-anchor': to > from ? 'start' : 'end' }
    : { x: `${(from + to) / 2}%`, 'text-anchor': 'middle' }
  return draw('text', { class: 'load', y: height - 6, 'data-room': room, lengthAdjust: 'spacingAndGlyphs', ...place }, label)
}

/** Narrow the labels inside `element` that are longer than their arrows. */
function fit(element) {
  for (const label of element.querySelectorAll('.load')) {
    label.removeAttribute('textLength')
    const room = label.dataset.room / 100 * label.ownerSVGElement.clientWidth - (label.hasAttribute('dx') ? 14 : 0)
    if (room > 0 && label.getComputedTextLength() > room) label.setAttribute('textLength', room)
  }
}

function caption(message) {
  const box = document.createElement('span')
  box.className = 'caption'
  const title = box.appendChild(document.createElement('span'))
  title.className = 'title'
  title.textContent = message.title
  if (message.second) say(title.appendChild(document.createElement('em')), 'second.short')
  // On a slow machine more digits would wrap the line on a phone.
  if (message.ms !== undefined) measured(box).textContent = `${message.ms.toFixed(message.ms < 10 ? 1 : 0)} ms`
  say(box.appendChild(document.createElement('span')), ...message.told).className = 'told'
  return box
}

function measured(box) {
  const element = box.appendChild(document.createElement('span'))
  element.className = 'measured'
  return element
}

function toggle(item, button, message) {
  const open = button.getAttribute('aria-expanded') === 'true'
  button.setAttribute('aria-expanded', String(!open))
  if (open) item.querySelector('.opened').remove()
  else item.append(opened(message))
}

function opened(message) {
  const box = document.createElement('div')
  box.className = 'opened'
  for (const measure of [message.trips, message.bytes]) if (measure) say(measured(box), ...measure)
  if (message.remark) say(box.appendChild(document.createElement('p')), message.remark).className = 'muted'
  const parts = box.appendChild(document.createElement('div'))
  parts.className = 'parts'
  for (const [key, text] of message.parts) {
    const part = parts.appendChild(document.createElement('div'))
    say(part.appendChild(document.createElement('h3')), key)
    const pre = part.appendChild(document.createElement('pre'))
    pre.tabIndex = 0
    pre.textContent = text || sentence('open.none')
  }
  if (message.after) {
    const details = box.appendChild(document.createElement('details'))
    details.open = message.holds !== undefined
    say(details.appendChild(document.createElement('summary')), 'open.holds')
    details.append(keysIn(message.after))
  }
  return box
}

function draw(name, attributes, text) {
  const element = document.createElementNS(SVG, name)
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value)
  if (text !== undefined) element.textContent = text
  return element
}

function pause(milliseconds) {
  return still.matches ? Promise.resolve() : new Promise((done) => setTimeout(done, milliseconds))
}
