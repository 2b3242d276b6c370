const { create } = require('./wxauth')

// The sandbox: `make run`. For your own service put its https address here, and your AppID into project.config.json.
const BASE_URL = 'http://127.0.0.1:8000'

const auth = create({ baseURL: BASE_URL })

App({
  auth,

  onLaunch() {
    // The pages need not wait for this: their requests do.
    auth.login().catch(error => console.warn('login', error.code, error.message))
  },
})
