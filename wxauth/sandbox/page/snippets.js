// The code snippets. The mini program has the address from the input field, the others that of this sandbox.

import { say } from './text.js'

const WRITTEN = 'http://127.0.0.1:8000'

export function fillSnippets() {
  const field = document.getElementById('address')
  const snippets = [...document.querySelectorAll('.snippet')].map((box) => {
    const code = box.querySelector('code')
    box.querySelector('.copy').addEventListener('click', (event) => copy(code, event.target))
    return [code, code.textContent]
  })
  const fill = () => {
    const address = field.value.trim().replace(/\/+$/, '') || WRITTEN
    snippets.forEach(([code, text], place) => {
      code.textContent = text.replaceAll(WRITTEN, place === 0 ? address : location.origin)
    })
  }
  field.value = location.origin
  field.addEventListener('input', fill)
  fill()
}

async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent)
    say(button, 'copied')
    setTimeout(() => say(button, 'copy'), 2000)
  } catch {
    // Without access to the clipboard, select the text.
    getSelection().selectAllChildren(code)
  }
}
