export * from './wxauth.js'
